"use strict";
// Contact sheets, the best and worst edits, and the viewer that enlarges a card.
{
  const PERIOD_MS = 5000;
  const VIEWS = [
    ["morph", "Morph", "Slide through the strengths"],
    ["wipe", "Before / after", "The original to the left of the line, the edit to the right"],
    ["heat", "Difference", "How much each pixel changed"],
  ];

  /** Views and outline for a group of cards: {element, cards}. */
  const tools = (heat) => {
    const state = { view: "morph", outline: false };
    const group = { cards: [], heat };
    const scale = deltah.byId("heat-scale").content.firstElementChild.cloneNode(true);
    scale.hidden = true;
    group.apply = () => {
      for (const card of group.cards) card.set(state);
      scale.hidden = state.view !== "heat" || !group.heat;
      scale.lastElementChild.textContent = `${deltah.short(group.heat ?? 0)} and more`;
    };
    const outline = deltah.make("input", {
      type: "checkbox", on: { change: () => { state.outline = outline.checked; group.apply(); } },
    });
    group.element = deltah.make("div", { class: "tools" },
      deltah.choice("View", VIEWS, "morph", (view) => { state.view = view; group.apply(); }),
      deltah.make("label", { class: "check" }, outline, "Show the region"), scale);
    return group;
  };

  /** A slider for all cards of a sheet, and a button that moves it back and forth. */
  const together = (group) => {
    const slider = deltah.make("input", {
      type: "range", class: "strength", min: 0, max: 1, step: 0.005, value: 1,
      "aria-label": "Strength of all pictures",
    });
    const show = () => {
      slider.style.setProperty("--share", slider.value);
      for (const { morph } of group.cards) morph.move(Number(slider.value) * morph.last);
    };
    slider.addEventListener("input", () => { stop(); show(); });
    slider.style.setProperty("--share", 1);
    let frame = 0;
    const play = deltah.make("button", { type: "button", class: "quiet", text: "Play" });
    const stop = () => {
      cancelAnimationFrame(frame);
      frame = 0;
      play.textContent = "Play";
    };
    play.addEventListener("click", () => {
      if (frame) {
        stop();
        return;
      }
      const begun = performance.now();
      const step = (now) => {
        slider.value = 0.5 + 0.5 * Math.cos((2 * Math.PI * (now - begun)) / PERIOD_MS);
        show();
        frame = requestAnimationFrame(step);
      };
      frame = requestAnimationFrame(step);
      play.textContent = "Stop";
    });
    play.hidden = deltah.calm.matches;
    return { stop, element: deltah.make("div", { class: "all" },
      deltah.make("span", { text: "All" }), slider, play) };
  };

  const startSheets = () => {
    const { sheets, cards } = deltah.summary;
    const place = deltah.byId("sheet");
    if (!place || !sheets.length) return;
    const group = tools(0);
    const all = together(group);
    const facts = deltah.make("p", { class: "muted", "aria-live": "polite" });
    const show = (number) => {
      all.stop();
      const sheet = sheets[number];
      group.cards = sheet.cards.map((n) => deltah.card(cards[n], { open: deltah.enlarge }));
      group.heat = cards[sheet.cards[0]].heat;
      place.replaceChildren(...group.cards.map((card) => card.element));
      const direction = sheet.direction ? ` of direction ${sheet.direction}` : "";
      facts.textContent = `${deltah.count(sheet.cards.length)} samples of`
        + ` ${deltah.count(sheet.edits)} edits${direction}.`;
      group.apply();
    };
    const names = sheets.map((sheet, n) => [n, sheet.title, sheet.direction || null]);
    deltah.byId("sheet-tools").append(
      deltah.choice("Region and direction", names, 0, show), group.element, all.element, facts);
    show(0);
  };

  const startExtremes = () => {
    const { extremes, cards } = deltah.summary;
    const place = deltah.byId("extreme");
    if (!place || !extremes.length) return;
    const group = tools(null);
    const show = (number) => {
      group.cards = extremes[number].cards.map(
        ([card, at]) => deltah.card(cards[card], { at, named: true, open: deltah.enlarge }));
      place.replaceChildren(...group.cards.map((card) => card.element));
      group.apply();
    };
    const titles = extremes.map(({ label, end }, n) => [n, `${label}, ${end}`, null]);
    deltah.byId("extreme-tools").append(
      deltah.choice("List", titles, 0, show), group.element);
    show(0);
  };

  /** The numbers of an edit as rows of a list. */
  const factList = (pairs) => deltah.make("dl", { class: "facts" }, ...pairs.flatMap(
    ([name, value]) => [deltah.make("dt", { text: name }), deltah.make("dd", { text: value })]));

  /** Opens the viewer with a card's picture, if there is one, and facts beside it. */
  deltah.view = ({ title, card = null, at = null, facts, sql = null }) => {
    const viewer = deltah.byId("viewer");
    const parts = [];
    if (card) {
      const group = tools(card.heat);
      const large = deltah.card(card, { at });
      group.cards = [large];
      group.apply();
      large.morph.load();
      parts.push(deltah.make("div", { class: "large" }, group.element, large.element));
    }
    const side = deltah.make("div", { class: "side" }, factList(facts));
    if (sql) {
      const button = deltah.make("button", { type: "button", class: "quiet", text: "Copy SQL" });
      button.addEventListener("click", () => deltah.copy(button, sql));
      side.append(deltah.make("pre", { text: sql, tabindex: 0 }), button);
    }
    viewer.querySelector("h2").textContent = title;
    viewer.querySelector(".content").replaceChildren(...parts, side);
    viewer.showModal();
  };

  /** Opens the viewer with what a card's own data say. */
  deltah.enlarge = (morph) => {
    const { data } = morph;
    const stop = morph.nearest;
    const facts = [["sample", data.key], ["shard", data.shard], ["index", String(data.index)],
      ["edit", data.title]];
    if (data.direction) facts.push(["direction", data.direction]);
    if (stop.place >= 0) facts.push(["strength", deltah.signed(stop.strength)]);
    for (const { name, label } of deltah.summary.charts.histograms ?? []) {
      const values = data.values[name];
      if (values && stop.place >= 0) facts.push([label, deltah.three(values[stop.place])]);
    }
    facts.push(["PSNR", `${deltah.three(data.psnr)} dB`]);
    deltah.view({ title: data.key, card: data, at: stop.place, facts });
  };

  deltah.startPictures = () => {
    const viewer = deltah.byId("viewer");
    viewer.querySelector("button").addEventListener("click", () => viewer.close());
    viewer.addEventListener("click", (event) => {
      if (event.target === viewer) viewer.close();
    });
    startSheets();
    startExtremes();
    addEventListener("beforeprint", () => {
      for (const canvas of document.querySelectorAll(".card canvas")) canvas.morph.load();
    });
  };
}
