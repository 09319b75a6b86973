"use strict";
// What all scripts of the page share. Texts of a run become text nodes or attributes, never markup.
const deltah = {
  summary: null,

  /** Called by data/summary.js. */
  begin(summary) {
    deltah.summary = summary;
  },

  /** An element with attributes, `text`, listeners (`on: {click}`) and children. */
  make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") element.textContent = value;
      else if (name === "on") {
        for (const [event, listener] of Object.entries(value)) {
          element.addEventListener(event, listener);
        }
      } else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) {
        element.setAttribute(name, value);
      }
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  },

  byId(id) {
    return document.getElementById(id);
  },

  /** A group of radio buttons that look like one control; `chosen(value)` is called on a change. */
  choice(label, options, value, chosen) {
    const name = `choice-${(deltah.choices += 1)}`;
    const buttons = options.map(([option, text, title]) => {
      const input = deltah.make("input", {
        type: "radio", name, value: option, checked: option === value,
        on: { change: () => chosen(option) },
      });
      return deltah.make("label", { title }, input, deltah.make("span", { text }));
    });
    return deltah.make("div", { class: "choice", role: "radiogroup", "aria-label": label },
      ...buttons);
  },
  choices: 0,

  /** Puts `text` on the clipboard, and says so on the button for a moment. */
  async copy(button, text) {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it and copy";
    }
    setTimeout(() => { button.textContent = before; }, 1600);
  },

  calm: matchMedia("(prefers-reduced-motion: reduce)"),
};
