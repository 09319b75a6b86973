"use strict";
// One picture that morphs through the strengths of an edit: neighbouring strengths are cross-faded.
{
  const GLIDE_MS = 220;
  const NO_CHANGE = "#000004";

  /** Sprites are loaded when their card is near the window. */
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      entry.target.morph.load();
    }
  }, { rootMargin: "400px" });

  class Morph {
    /** `data` is a card of the summary; `changed()` is called when what is shown changes. */
    constructor(data, changed) {
      this.data = data;
      this.changed = changed;
      this.stops = data.strengths.map((strength, place) => ({ strength, place, cell: place + 1 }));
      // Without an edit there is the original: a morph from − to + passes through it.
      if (data.original && !data.noise && !data.strengths.includes(0)) {
        this.stops.push({ strength: 0, place: -1, cell: 0 });
        this.stops.sort((a, b) => a.strength - b.strength);
      }
      this.position = this.stops.length - 1;
      this.view = "morph";
      this.outline = false;
      this.wipe = 0.5;
      this.image = null;
      this.canvas = deltah.make("canvas", { width: data.side, height: data.side });
      this.canvas.morph = this;
      if (data.side < 200) this.canvas.classList.add("pixelated");
    }

    watch() {
      near.observe(this.canvas);
    }

    load() {
      if (this.image) return;
      this.image = new Image();
      this.image.addEventListener("load", () => this.paint());
      this.image.src = this.data.file;
    }

    get last() {
      return this.stops.length - 1;
    }

    /** The stop that is shown, or the nearer of two. */
    get nearest() {
      return this.stops[Math.round(this.position)];
    }

    /** Shows `position`, a stop's number or between two. */
    move(position) {
      this.position = Math.max(0, Math.min(this.last, position));
      this.paint();
      this.changed();
    }

    /** Moves to a stop, in a moment or at once. */
    glide(stop) {
      cancelAnimationFrame(this.frame);
      const from = this.position;
      const to = Math.max(0, Math.min(this.last, stop));
      if (deltah.calm.matches) {
        this.move(to);
        return;
      }
      const begun = performance.now();
      const step = (now) => {
        const part = Math.min(1, (now - begun) / GLIDE_MS);
        this.move(from + (to - from) * part * (2 - part));
        if (part < 1) this.frame = requestAnimationFrame(step);
      };
      this.frame = requestAnimationFrame(step);
    }

    paint() {
      if (!this.image || !this.image.complete || !this.image.naturalWidth) return;
      const { side, original, mask } = this.data;
      const context = this.canvas.getContext("2d");
      const cell = (column, line) => context.drawImage(
        this.image, column * side, line * side, side, side, 0, 0, side, side);
      const heat = this.view === "heat" && original;
      const draw = (stop) => {
        if (!heat) cell(stop.cell, 0);
        else if (stop.place >= 0) cell(stop.cell, 1);
        else {
          context.fillStyle = NO_CHANGE;
          context.fillRect(0, 0, side, side);
        }
      };
      const low = Math.floor(this.position);
      context.globalAlpha = 1;
      context.clearRect(0, 0, side, side);
      draw(this.stops[low]);
      if (this.position > low) {
        context.globalAlpha = this.position - low;
        draw(this.stops[low + 1]);
        context.globalAlpha = 1;
      }
      if (this.view === "wipe" && original) {
        context.save();
        context.beginPath();
        context.rect(0, 0, this.wipe * side, side);
        context.clip();
        cell(0, 0);
        context.restore();
      }
      if (this.outline && mask) cell(0, 1);
    }
  }

  deltah.Morph = Morph;
}
