"use strict";
// What is asked of a table: which rows, in which order; and the same question as SQL.
{
  const collator = new Intl.Collator("en", { numeric: true });

  class Query {
    constructor(table) {
      this.table = table;
      this.text = "";
      this.choices = new Map(); // label -> text, number, or null for "none"
      this.ranges = []; // {label, low, high}, null for open ends
      this.sort = null; // {label, descending}
    }

    /** Whether it asks for the rows as they are, so that not all of them must be loaded. */
    get plain() {
      return !this.text && !this.choices.size && !this.ranges.length && !this.sort;
    }

    /** The numbers of the rows that are asked for, in order; all rows must be in memory. */
    rows() {
      const tests = this.tests();
      const found = new Uint32Array(this.table.rows);
      let count = 0;
      for (let row = 0; row < this.table.rows; row += 1) {
        if (tests.every((test) => test(row))) {
          found[count] = row;
          count += 1;
        }
      }
      const rows = found.subarray(0, count);
      if (this.sort) rows.sort(this.order());
      return rows;
    }

    tests() {
      const tests = [];
      if (this.text) {
        const wanted = this.text.toLowerCase();
        const sought = [...this.table.columns.values()].filter((column) => column.texts);
        const matching = sought.map((column) => [column.values,
          new Set(column.texts.flatMap((text, n) => (
            text.toLowerCase().includes(wanted) ? [n] : [])))]);
        tests.push((row) => matching.some(([values, codes]) => codes.has(values[row])));
      }
      for (const [label, choice] of this.choices) {
        const { values, codes } = this.table.columns.get(label);
        const wanted = codes === null ? Math.fround(choice)
          : choice === null ? -1 : codes.get(choice) ?? -2;
        tests.push((row) => values[row] === wanted);
      }
      for (const { label, low, high } of this.ranges) {
        const { values } = this.table.columns.get(label);
        tests.push((row) => (low === null || values[row] >= low)
          && (high === null || values[row] <= high) && !Number.isNaN(values[row]));
      }
      return tests;
    }

    /** Rows without a value stand last either way; equal ones in their own order. */
    order() {
      const { values, texts } = this.table.columns.get(this.sort.label);
      const sign = this.sort.descending ? -1 : 1;
      let keys = values;
      if (texts) {
        const places = new Float64Array(texts.length);
        [...texts.keys()].sort((a, b) => collator.compare(texts[a], texts[b]))
          .forEach((code, place) => { places[code] = place; });
        keys = Float64Array.from(values, (code) => (code < 0 ? NaN : places[code]));
      }
      return (a, b) => {
        const [x, y] = [keys[a], keys[b]];
        if (Number.isNaN(x) || Number.isNaN(y)) {
          return Number.isNaN(x) - Number.isNaN(y) || a - b;
        }
        return sign * (x - y) || a - b;
      };
    }

    /** The question for DuckDB, asked in the run's folder; `columns` null is all of them. */
    sql(files, columns, limit) {
      const where = [];
      const lost = new Set(); // what the files have no column for
      const named = (label) => {
        const { name } = this.table.columns.get(label);
        if (!name) lost.add(label);
        return name;
      };
      if (this.text) {
        const pattern = quoted(`%${this.text.replace(/[\\%_]/g, (char) => `\\${char}`)}%`);
        const sought = [...this.table.columns.values()].filter((c) => c.texts && c.name);
        where.push(`(${sought.map((c) => `${c.name} ILIKE ${pattern} ESCAPE '\\'`).join(" OR ")})`);
      }
      for (const [label, choice] of this.choices) {
        const { name, kind } = this.table.columns.get(label);
        if (!named(label)) continue;
        if (choice === null) where.push(`${name} IS NULL`);
        else if (kind === "text" || kind === "id") where.push(`${name} = ${quoted(choice)}`);
        else if (kind === "whole") where.push(`${identifier(name)} = ${choice}`);
        else where.push(`abs(${name} - ${Number(choice.toPrecision(6))}) < 1e-6`);
      }
      for (const { label, low, high } of this.ranges) {
        const name = identifier(named(label));
        if (!name) continue;
        if (low !== null) where.push(`${name} >= ${low}`);
        if (high !== null) where.push(`${name} <= ${high}`);
      }
      const names = columns?.map((c) => identifier(c.name)).filter((name) => name);
      const lines = [`SELECT ${names?.join(", ") || "*"}`, `FROM ${quoted(files)}`];
      if (where.length) lines.push(`WHERE ${where.join("\n  AND ")}`);
      if (this.sort) {
        const name = identifier(named(this.sort.label));
        if (name) lines.push(`ORDER BY ${name} ${this.sort.descending ? "DESC" : "ASC"} NULLS LAST`);
      }
      const comments = Array.from(lost, (label) => `-- without ${label}, which the files do not have`);
      return [...comments, ...lines, `LIMIT ${limit};`].join("\n");
    }
  }

  const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

  /** Names of columns come from the config's names of scores: quoted unless they are plain. */
  const identifier = (name) => (
    name === "" || (/^[a-z_][a-z0-9_]*$/.test(name) && name !== "index") ? name
      : `"${name.replaceAll('"', '""')}"`);

  deltah.Query = Query;
}
