"use strict";
// The fields above a table: search, choices, ranges of numbers, columns.
{
  const NONE = "(none)";
  const SEARCH_WAIT_MS = 200;

  const searchField = (query, changed) => {
    let timer = 0;
    return deltah.make("label", { class: "field wide" },
      deltah.make("span", { text: "Search" }),
      deltah.make("input", {
        type: "search", placeholder: "sample, shard, direction …",
        on: {
          input: (event) => {
            clearTimeout(timer);
            timer = setTimeout(() => {
              query.text = event.target.value.trim();
              changed();
            }, SEARCH_WAIT_MS);
          },
        },
      }));
  };

  /** A column's values to choose from; null if there are none or too many. */
  const choiceField = (column, query, changed) => {
    if (!column.choices || column.choices.length + (column.hasNone ? 1 : 0) < 2) return null;
    const select = deltah.make("select", {}, deltah.make("option", { value: "", text: "all" }));
    column.choices.forEach((choice, n) => select.append(
      deltah.make("option", { value: n, text: deltah.written(column.kind, choice) })));
    if (column.hasNone) select.append(deltah.make("option", { value: "none", text: NONE }));
    select.addEventListener("change", () => {
      if (select.value === "") query.choices.delete(column.label);
      else {
        query.choices.set(column.label,
          select.value === "none" ? null : column.choices[Number(select.value)]);
      }
      changed();
    });
    return deltah.make("label", { class: "field" },
      deltah.make("span", { text: column.label }), select);
  };

  /** Fields for a range of one number, and the ranges that hold. */
  const rangeFields = (table, query, changed) => {
    const numbers = [...table.columns.values()].filter(
      (column) => column.kind === "number" && column.low !== null);
    if (!numbers.length) return [];
    const measure = deltah.make("select", { "aria-label": "Number to limit" },
      ...numbers.map(({ label }) => deltah.make("option", { value: label, text: label })));
    const ends = ["at least", "at most"].map((label) => deltah.make("input", {
      type: "number", step: "any", "aria-label": label, inputmode: "decimal",
    }));
    const hint = () => {
      const { low, high } = table.columns.get(measure.value);
      ends[0].placeholder = deltah.short(low);
      ends[1].placeholder = deltah.short(high);
    };
    measure.addEventListener("change", hint);
    hint();
    const held = deltah.make("ul", { class: "held" });
    const show = () => held.replaceChildren(...query.ranges.map((range) => {
      const low = range.low === null ? "" : `${deltah.short(range.low)} ≤ `;
      const high = range.high === null ? "" : ` ≤ ${deltah.short(range.high)}`;
      return deltah.make("li", {}, deltah.make("button", {
        type: "button", "aria-label": `Remove ${low}${range.label}${high}`,
        text: `${low}${range.label}${high} ×`,
        on: {
          click: () => {
            query.ranges.splice(query.ranges.indexOf(range), 1);
            show();
            changed();
          },
        },
      }));
    }));
    const form = deltah.make("form", { class: "field range" },
      deltah.make("span", { text: "Range" }),
      deltah.make("div", {}, ends[0], deltah.make("i", { text: "≤" }), measure,
        deltah.make("i", { text: "≤" }), ends[1],
        deltah.make("button", { class: "quiet", text: "Add" })));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const [low, high] = ends.map((end) => (end.value === "" ? null : Number(end.value)));
      if (low === null && high === null) return;
      query.ranges.push({ label: measure.value, low, high });
      for (const end of ends) end.value = "";
      show();
      changed();
    });
    return [form, held];
  };

  /** Which columns are shown. */
  const columnFields = (table, changed) => {
    const boxes = [...table.columns.values()].map((column) => {
      const box = deltah.make("input", { type: "checkbox", checked: column.shown });
      box.addEventListener("change", () => {
        column.shown = box.checked;
        changed();
      });
      return deltah.make("label", { class: "check", title: column.meaning }, box, column.label);
    });
    return deltah.make("details", { class: "columns" },
      deltah.make("summary", { text: "Columns" }), deltah.make("div", {}, ...boxes));
  };

  /** All fields of a table; `asked()` after a change of the query, `shown()` of the columns. */
  deltah.filters = (table, query, asked, shown) => {
    const choices = [...table.columns.values()].map(
      (column) => choiceField(column, query, asked)).filter((field) => field);
    return deltah.make("div", { class: "filters" }, searchField(query, asked), ...choices,
      ...rangeFields(table, query, asked), columnFields(table, shown));
  };
}
