"use strict";
// Starts the page: theme, where the reader is, copying, and the parts that need data.
{
  const THEMES = ["auto", "light", "dark"];
  const NAMES = { auto: "System", light: "Light", dark: "Dark" };
  const KEY = "deltah-theme";

  const startTheme = () => {
    const button = deltah.byId("theme");
    const set = (theme) => {
      if (theme === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme;
      button.textContent = NAMES[theme];
      button.setAttribute("aria-label", `Colours: ${NAMES[theme]}. Change them`);
    };
    let now = document.documentElement.dataset.theme ?? "auto";
    set(now);
    button.hidden = false;
    button.addEventListener("click", () => {
      now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
      set(now);
      try {
        localStorage.setItem(KEY, now);
      } catch {
        // Some browsers keep nothing for pages from disk: the choice then holds for this visit.
      }
    });
  };

  /** Marks the section that is read in the navigation. */
  const startPlace = () => {
    const links = new Map([...document.querySelectorAll(".sections a")].map(
      (link) => [link.hash.slice(1), link]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const [id, link] of links) {
          if (id === entry.target.id) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
      }
    }, { rootMargin: "-20% 0px -70% 0px" });
    for (const id of links.keys()) {
      const section = deltah.byId(id);
      if (section) seen.observe(section);
    }
  };

  const startCopies = () => {
    for (const button of document.querySelectorAll("button[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        deltah.copy(button, deltah.byId(button.dataset.copy).textContent);
      });
    }
  };

  startTheme();
  startPlace();
  startCopies();
  deltah.startPictures();
  deltah.startCharts();
  deltah.startExplorer();
}
