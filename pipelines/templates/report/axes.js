"use strict";
// SVG charts: scales, ticks and frames. Colours are classes, so that they follow the theme.
{
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const MARGIN = { left: 54, right: 14, top: 10, bottom: 44 };

  deltah.svg = (tag, attributes = {}, text = null) => {
    const element = document.createElementNS(NAMESPACE, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    return element;
  };

  const linearTicks = (low, high, most) => {
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const ticks = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) {
      ticks.push(n * step);
    }
    return ticks;
  };

  const logTicks = (low, high, most) => {
    const powers = [];
    for (let n = Math.floor(Math.log10(low)); n <= Math.ceil(Math.log10(high)); n += 1) {
      powers.push(10 ** n);
    }
    const choices = [[1, 2, 3, 5], [1, 2, 5], [1, 3], [1]].map((steps) => powers
      .flatMap((power) => steps.map((step) => power * step))
      .filter((tick) => tick >= low * 0.999 && tick <= high * 1.001));
    return choices.find((ticks) => ticks.length <= most) ?? choices.at(-1);
  };

  /** A scale from values to pixels: {at(value), ticks}. */
  deltah.scale = (low, high, from, to, { log = false, most = 6 } = {}) => {
    const position = log ? Math.log : (value) => value;
    const [start, span] = [position(low), position(high) - position(low) || 1];
    return {
      at: (value) => from + ((position(value) - start) / span) * (to - from),
      ticks: log ? logTicks(low, high, most) : linearTicks(low, high, most),
    };
  };

  /** The inner edges of a chart of this size. */
  deltah.frame = (width, height) => ({
    left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top,
    bottom: height - MARGIN.bottom,
  });

  /** Grid, ticks and names of two scales. */
  deltah.drawAxes = (svg, frame, x, y, { nameX, nameY, textX, textY }) => {
    const grid = svg.appendChild(deltah.svg("g", { class: "grid" }));
    const texts = svg.appendChild(deltah.svg("g", { class: "ticks" }));
    for (const tick of x.ticks) {
      const at = x.at(tick);
      grid.append(deltah.svg("line", { x1: at, x2: at, y1: frame.top, y2: frame.bottom }));
      texts.append(deltah.svg("text",
        { x: at, y: frame.bottom + 16, "text-anchor": "middle" }, textX(tick)));
    }
    for (const tick of y.ticks) {
      const at = y.at(tick);
      grid.append(deltah.svg("line", { x1: frame.left, x2: frame.right, y1: at, y2: at }));
      texts.append(deltah.svg("text",
        { x: frame.left - 7, y: at + 4, "text-anchor": "end" }, textY(tick)));
    }
    texts.append(deltah.svg("text", {
      x: (frame.left + frame.right) / 2, y: frame.bottom + 36, "text-anchor": "middle",
    }, nameX));
    const middle = (frame.top + frame.bottom) / 2;
    texts.append(deltah.svg("text", {
      x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})`,
    }, nameY));
  };

  /** Draws into `place` whenever its width changes: `draw(svg, width, height)`. */
  deltah.chart = (place, label, draw) => {
    let drawn = 0;
    const again = () => {
      const width = Math.round(Math.max(260, Math.min(640, place.clientWidth)));
      if (width === drawn) return;
      drawn = width;
      const height = Math.round(Math.max(230, width * 0.58));
      const svg = deltah.svg("svg", {
        viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label,
      });
      draw(svg, width, height);
      place.replaceChildren(svg);
    };
    new ResizeObserver(again).observe(place);
    return () => { drawn = 0; again(); };
  };

  /** Names of the regions in their colours, each with a value. */
  deltah.legend = (names, texts) => deltah.make("ul", { class: "legend" },
    ...names.map((name, n) => deltah.make("li", { class: `c${n}` },
      deltah.make("i"), deltah.make("span", { text: name }),
      texts ? deltah.make("b", { text: texts[n] }) : null)));
}
