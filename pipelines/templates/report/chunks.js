"use strict";
// Tables in columnar chunks: a chunk is a script that is loaded when its rows are needed.
{
  const decoded = (text, Kind) => {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
    return new Kind(bytes.buffer);
  };

  class Table {
    constructor(head) {
      this.head = head;
      this.rows = head.rows;
      this.columns = new Map();
      for (const column of head.columns) {
        const texts = column.kind === "text" || column.kind === "id";
        this.columns.set(column.label, {
          ...column,
          texts: texts ? [] : null,
          codes: texts ? new Map() : null,
          values: texts ? new Int32Array(this.rows).fill(-1)
            : new Float32Array(this.rows).fill(NaN),
        });
      }
      this.hidden = new Map();
      this.waiting = new Map();
      this.loaded = 0;
    }

    /** The value of a column in a row: a number, NaN, a text or null. */
    value(label, row) {
      const column = this.columns.get(label);
      const value = column.values[row];
      return column.texts === null ? value : value < 0 ? null : column.texts[value];
    }

    /** Number of a row's card or thumbnail, -1 for none. */
    picture(name, row) {
      const values = this.hidden.get(name);
      return values ? values[row] : -1;
    }

    /** Resolves when the chunk is in memory. */
    load(number) {
      if (!this.waiting.has(number)) {
        this.waiting.set(number, new Promise((resolve, reject) => {
          const script = deltah.make("script", { src: this.head.chunks[number] });
          script.addEventListener("load", () => { script.remove(); resolve(); });
          script.addEventListener("error", () => {
            this.waiting.delete(number);
            reject(new Error(`${this.head.chunks[number]} cannot be loaded`));
          });
          document.head.append(script);
        }));
      }
      return this.waiting.get(number);
    }

    /** Resolves when the rows are in memory. */
    loadRows(rows) {
      const chunks = new Set(Array.from(rows, (row) => Math.floor(row / this.head.chunkRows)));
      return Promise.all(Array.from(chunks, (number) => this.load(number)));
    }

    /** Resolves when all rows are in memory; `progress(share)` on the way. */
    async loadAll(progress) {
      const numbers = this.head.chunks.keys(); // one iterator: every chunk is taken once
      const next = async () => {
        for (const number of numbers) {
          await this.load(number);
          progress(this.loaded / this.head.chunks.length);
        }
      };
      await Promise.all([next(), next(), next(), next()]);
    }

    get whole() {
      return this.loaded === this.head.chunks.length;
    }

    put(number, data) {
      const start = number * this.head.chunkRows;
      for (const [label, column] of this.columns) {
        const found = data[label];
        if (column.texts === null) {
          column.values.set(decoded(found, Float32Array), start);
          continue;
        }
        const own = found.texts.map((text) => {
          if (!column.codes.has(text)) {
            column.codes.set(text, column.texts.length);
            column.texts.push(text);
          }
          return column.codes.get(text);
        });
        decoded(found.codes, Int32Array).forEach((code, row) => {
          column.values[start + row] = code < 0 ? -1 : own[code];
        });
      }
      for (const label of Object.keys(data).filter((key) => key.startsWith("#"))) {
        const name = label.slice(1);
        if (!this.hidden.has(name)) {
          this.hidden.set(name, new Float32Array(this.rows).fill(-1));
        }
        this.hidden.get(name).set(decoded(data[label], Float32Array), start);
      }
      this.loaded += 1;
    }
  }

  const tables = new Map();

  /** The table of that name, the same one every time; null if the run has none. */
  deltah.table = (name) => {
    const head = deltah.summary.tables[name];
    if (!head) return null;
    if (!tables.has(name)) tables.set(name, new Table(head));
    return tables.get(name);
  };

  /** Called by a chunk's script. */
  deltah.add = (name, number, data) => deltah.table(name).put(number, data);
}
