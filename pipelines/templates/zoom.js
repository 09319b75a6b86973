"use strict";
const view = document.createElement("dialog");
const picture = view.appendChild(new Image());
document.body.append(view);
view.addEventListener("click", () => view.close());
for (const link of document.querySelectorAll(".strip a")) {
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || !view.showModal) return;
    event.preventDefault();
    const small = link.firstElementChild;
    const room = Math.min(innerWidth * 0.96 / small.width, innerHeight * 0.94 / small.height);
    const pixelated = link.closest(".pixelated") !== null;
    const most = pixelated ? 16 : 2 * small.naturalWidth / small.width;
    view.className = pixelated ? "pixelated" : "";
    picture.src = link.href;
    picture.alt = small.alt;
    picture.style.width = `${small.width * Math.min(room < 1.3 ? 2.5 : room, most)}px`;
    view.showModal();
  });
}
