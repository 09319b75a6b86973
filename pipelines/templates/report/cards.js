"use strict";
// A card: a sample's picture with its slider through the strengths, and what was measured there.
{
  const MOST_LABELS = 5;

  const shownMeasures = () => {
    const names = { roir: "ROIR", in_change: "in", out_change: "out" };
    return Object.entries(names);
  };

  /** Names of the stops below the slider; only the ends and the middle if there are many. */
  const stopLabels = (morph) => {
    const zero = morph.stops.length > 3 ? "0" : "original";
    const text = (stop) => (stop.place < 0 ? zero : deltah.signed(stop.strength));
    const some = morph.stops.length > MOST_LABELS
      ? morph.stops.filter((stop, n) => n === 0 || n === morph.last || stop.place < 0)
      : morph.stops;
    const labels = some.map((stop) => {
      const share = morph.last ? morph.stops.indexOf(stop) / morph.last : 0.5;
      const inner = stop.place >= 0 && share > 0 && share < 1;
      const label = deltah.make("span", { class: inner ? "inner" : null, text: text(stop) });
      label.style.setProperty("--share", share);
      return label;
    });
    return deltah.make("div", { class: "stops", "aria-hidden": "true" }, ...labels);
  };

  /**
   * A card as {element, morph, set}. `open(morph)` is called when its picture is selected;
   * `at` is the place of the strength to begin with, without it the strongest; `named` writes what
   * is edited below the sample.
   */
  deltah.card = (data, { open = null, at = null, named = false } = {}) => {
    const strength = deltah.make("input", {
      type: "range", class: "strength", min: 0, step: 0.01,
      "aria-label": `Strength of ${data.title}, sample ${data.key}`,
    });
    const wipe = deltah.make("input", {
      type: "range", class: "wipe", min: 0, max: 1, step: 0.005, value: 0.5, hidden: true,
      "aria-label": "How much of the original is shown",
    });
    const line = deltah.make("i", { class: "divider", hidden: true });
    const shown = deltah.make("b");
    const numbers = shownMeasures().filter(([name]) => name in data.values).map(([name, label]) => {
      const number = deltah.make("dd");
      return { name, number, label: deltah.make("dt", { text: label }) };
    });

    const morph = new deltah.Morph(data, () => {
      const stop = morph.nearest;
      strength.value = morph.position;
      shown.textContent = stop.place < 0 ? "original" : deltah.signed(stop.strength);
      for (const { name, number } of numbers) {
        number.textContent = stop.place < 0 ? "–" : deltah.three(data.values[name][stop.place]);
      }
      strength.setAttribute("aria-valuetext", stop.place < 0 ? "original"
        : `strength ${shown.textContent}, ROIR ${deltah.three(data.values.roir?.[stop.place])}`);
      strength.style.setProperty("--share", morph.last ? morph.position / morph.last : 0.5);
    });
    strength.max = morph.last;
    strength.hidden = morph.last === 0;
    strength.addEventListener("input", () => morph.move(Number(strength.value)));
    strength.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const from = step > 0 ? Math.floor(morph.position + 1e-6) : Math.ceil(morph.position - 1e-6);
      morph.glide(from + step);
    });
    wipe.addEventListener("input", () => {
      morph.wipe = Number(wipe.value);
      line.style.left = `${100 * morph.wipe}%`;
      morph.paint();
    });

    const stage = deltah.make("div", { class: "stage" });
    if (open) {
      stage.append(deltah.make("button", {
        type: "button", class: "picture", "aria-label": `Enlarge sample ${data.key}`,
        on: { click: () => open(morph) },
      }, morph.canvas));
    } else stage.append(morph.canvas);
    stage.append(line, wipe);
    morph.canvas.setAttribute("role", "img");
    morph.canvas.setAttribute("aria-label", `Sample ${data.key}, ${data.title}`);

    const set = ({ view, outline }) => {
      morph.view = view;
      morph.outline = outline;
      const wiping = view === "wipe" && data.original;
      wipe.hidden = !wiping;
      line.hidden = !wiping;
      morph.paint();
    };
    const element = deltah.make("figure", { class: "card" }, stage,
      deltah.make("div", { class: "slider" }, strength, stopLabels(morph)),
      deltah.make("figcaption", {},
        deltah.make("div", { class: "who" },
          deltah.make("span", { class: "key", text: data.key, title: data.key }), shown),
        named ? deltah.make("div", { class: "what", text: data.title, title: data.title }) : null,
        deltah.make("dl", {}, ...numbers.map(({ label, number }) =>
          deltah.make("div", {}, label, number)))));
    const first = morph.stops.findIndex((stop) => stop.place === at);
    morph.move(first < 0 ? morph.last : first);
    morph.watch();
    return { element, morph, set };
  };
}
