"use strict";
// The explorer: tables of edits and directions that can be sorted, filtered and paged.
{
  const PAGE_ROWS = 50;
  const SQL_ROWS = 100;
  const TABLES = [
    ["edits", "Edits"],
    ["directions", "Directions"],
  ];

  /** The view of one table. */
  const explorer = (name) => {
    const table = deltah.table(name);
    const { files } = table.head; // null: there are none with these rows
    const query = new deltah.Query(table);
    let rows = null; // null: all, in their order
    let page = 0;
    let turn = 0;
    const place = deltah.make("div", { class: "scroll", tabindex: 0, role: "region",
      "aria-label": `Table of ${name}` });
    const count = deltah.make("p", { class: "found", role: "status" });
    const sql = deltah.make("pre", { tabindex: 0 });
    const total = () => (rows === null ? table.rows : rows.length);
    const pages = () => Math.max(1, Math.ceil(total() / PAGE_ROWS));

    const step = (label, text, to) => deltah.make("button", {
      type: "button", class: "quiet", "aria-label": label, text,
      on: { click: () => turnTo(to()) },
    });
    const number = deltah.make("input", { type: "number", min: 1, "aria-label": "Page",
      on: { change: () => turnTo(Number(number.value) - 1) } });
    const of = deltah.make("span");
    const first = step("First page", "«", () => 0);
    const back = step("Previous page", "‹", () => page - 1);
    const on = step("Next page", "›", () => page + 1);
    const end = step("Last page", "»", () => pages() - 1);
    const pager = deltah.make("nav", { class: "pager", "aria-label": `Pages of ${name}` },
      first, back, number, of, on, end);

    const failed = (error) => { count.textContent = `${error.message}.`; };

    const draw = async () => {
      const begin = page * PAGE_ROWS;
      const length = Math.min(PAGE_ROWS, total() - begin);
      const shown = rows === null ? Array.from({ length }, (_, n) => begin + n)
        : rows.subarray(begin, begin + length);
      await table.loadRows(shown);
      deltah.drawTable(place, table, query, shown, { open: (row) => open(row), sorted: ask });
      const all = deltah.count(table.rows);
      count.textContent = rows === null ? `${all} ${name}` : `${deltah.count(total())} of ${all} ${name}`;
      number.value = page + 1;
      number.max = pages();
      of.textContent = `of ${deltah.count(pages())}`;
      first.disabled = back.disabled = page === 0;
      on.disabled = end.disabled = page >= pages() - 1;
      if (files) sql.textContent = query.sql(files, [...table.columns.values()].filter((c) => c.shown), SQL_ROWS);
    };

    const turnTo = (to) => {
      page = Math.max(0, Math.min(pages() - 1, Math.trunc(to) || 0));
      draw().catch(failed);
    };

    /** Answers the query; a later question makes an earlier one void. */
    const ask = async () => {
      const mine = (turn += 1);
      page = 0;
      try {
        if (query.plain) rows = null;
        else {
          if (!table.whole) {
            await table.loadAll((share) => {
              if (mine === turn) count.textContent = `reading … ${Math.round(100 * share)} %`;
            });
          }
          if (mine !== turn) return;
          rows = query.rows();
        }
        await draw();
      } catch (error) {
        failed(error);
      }
    };

    const open = (row) => {
      const columns = [...table.columns.values()];
      const facts = columns.map((column) => [column.label,
        deltah.written(column.kind, table.value(column.label, row))]);
      const number = table.picture("card", row);
      const card = number < 0 ? null : deltah.summary.cards[number];
      const one = new deltah.Query(table);
      for (const label of name === "edits" ? ["shard", "index", "region", "rank", "direction", "strength"] : []) {
        const value = table.value(label, row);
        if (value !== null && !Number.isNaN(value)) one.choices.set(label, value);
      }
      deltah.view({
        title: table.value(columns[0].label, row) ?? "", card, facts,
        at: card ? card.rows.indexOf(row) : null,
        sql: name === "edits" ? one.sql(files, null, 1) : null,
      });
    };

    const copy = deltah.make("button", { type: "button", class: "quiet", text: "Copy SQL" });
    copy.addEventListener("click", () => deltah.copy(copy, sql.textContent));
    const element = deltah.make("div", { class: "explorer", id: `explorer-${name}` },
      deltah.filters(table, query, ask, () => draw().catch(failed)),
      deltah.make("div", { class: "above" }, count, pager), place,
      deltah.make("details", { class: "sql", hidden: !files },
        deltah.make("summary", { text: "The same as SQL" }), sql, copy,
        deltah.make("p", { class: "muted small",
          text: "For DuckDB, started in the run's folder." })));
    draw().catch(failed);
    return element;
  };

  deltah.startExplorer = () => {
    const place = deltah.byId("explorer-place");
    const there = TABLES.filter(([name]) => deltah.summary.tables[name]);
    if (!place || !there.length) return;
    const made = new Map();
    const show = (name) => {
      if (!made.has(name)) made.set(name, explorer(name));
      place.replaceChildren(made.get(name));
    };
    if (there.length > 1) {
      deltah.byId("explorer-tools").append(
        deltah.choice("Table", there.map(([name, title]) => [name, title, null]), there[0][0], show));
    }
    // The first chunk is loaded when the reader comes near.
    const near = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      show(there[0][0]);
    }, { rootMargin: "600px" });
    near.observe(place);
  };
}
