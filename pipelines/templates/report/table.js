"use strict";
// A page of rows as an HTML table, with headings that sort.
{
  const thumbnail = (number) => {
    const { side, columns, perFile, files } = deltah.summary.thumbnails;
    const place = number % perFile;
    const picture = deltah.make("span", { class: "thumbnail" });
    const scale = 40 / side;
    picture.style.backgroundImage = `url("${files[Math.floor(number / perFile)]}")`;
    picture.style.backgroundSize = `${columns * 40}px auto`;
    picture.style.backgroundPosition =
      `${-(place % columns) * side * scale}px ${-Math.floor(place / columns) * side * scale}px`;
    return picture;
  };

  const heading = (column, query, sorted) => {
    const now = query.sort?.label === column.label ? query.sort : null;
    const cell = deltah.make("th", {
      scope: "col", class: column.texts ? "text" : null, title: column.meaning,
      "aria-sort": now ? (now.descending ? "descending" : "ascending") : null,
    });
    const button = deltah.make("button", {
      type: "button", text: column.label,
      on: {
        click: () => {
          const descending = now ? !now.descending : column.better === "high";
          query.sort = { label: column.label, descending };
          sorted();
        },
      },
    });
    cell.append(button);
    return cell;
  };

  /** The table's head and rows; `open(row)` when a row is selected, `sorted()` after a click. */
  deltah.drawTable = (place, table, query, rows, { open, sorted }) => {
    const columns = [...table.columns.values()].filter((column) => column.shown);
    const pictures = deltah.summary.thumbnails && table.hidden.has("thumbnail");
    const head = deltah.make("tr", {},
      pictures ? deltah.make("th", { class: "text" },
        deltah.make("span", { class: "unseen", text: "picture" })) : null,
      ...columns.map((column) => heading(column, query, sorted)));
    const lines = Array.from(rows, (row) => {
      const line = deltah.make("tr", { on: { click: () => open(row) } });
      if (pictures) {
        const number = table.picture("thumbnail", row);
        line.append(deltah.make("td", { class: "text" }, number < 0
          ? deltah.make("span", { class: "thumbnail none" }) : thumbnail(number)));
      }
      columns.forEach((column, n) => {
        const text = deltah.written(column.kind, table.value(column.label, row));
        if (n > 0) {
          const kind = column.kind === "id" ? "text id" : column.texts ? "text" : null;
          line.append(deltah.make("td", { class: kind, text, title: column.texts ? text : null }));
          return;
        }
        const button = deltah.make("button", {
          type: "button", class: "row", text,
          on: { click: (event) => { event.stopPropagation(); open(row); } },
        });
        line.append(deltah.make("td", { class: "text first", title: text }, button));
      });
      return line;
    });
    place.replaceChildren(deltah.make("table", {},
      deltah.make("thead", {}, head), deltah.make("tbody", {}, ...lines)));
  };
}
