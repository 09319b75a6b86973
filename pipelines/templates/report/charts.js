"use strict";
// The charts of a run: distributions of every measure, change over strength, locality.
{
  const startHistograms = ({ regions, histograms }) => {
    const place = deltah.byId("histogram");
    if (!place || !histograms.length) return;
    let found = histograms[0];
    const legend = deltah.byId("histogram-legend");
    const meaning = deltah.byId("histogram-meaning");
    const draw = (svg, width, height) => {
      const frame = deltah.frame(width, height);
      const shares = found.counts.map((counts) => {
        const all = counts.reduce((sum, count) => sum + count, 0);
        return counts.map((count) => (all ? count / all : 0));
      });
      const top = 1.05 * Math.max(...shares.flat());
      const x = deltah.scale(found.low, found.high, frame.left, frame.right,
        { log: found.log, most: width < 400 ? 4 : 7 });
      const y = deltah.scale(0, top, frame.bottom, frame.top, { most: 5 });
      deltah.drawAxes(svg, frame, x, y, {
        nameX: found.label, nameY: "share of the region's edits", textX: deltah.short,
        textY: (share) => `${deltah.short(100 * share)} %`,
      });
      const step = (frame.right - frame.left) / found.counts[0].length;
      shares.forEach((values, n) => {
        if (!values.some((value) => value > 0)) return;
        const outline = values.map(
          (value) => `V${y.at(value).toFixed(1)}h${step.toFixed(3)}`).join("");
        const path = `M${frame.left},${frame.bottom}${outline}V${frame.bottom}`;
        svg.append(deltah.svg("path", { d: path, class: `stairs c${n}` }));
      });
    };
    const again = deltah.chart(place, "Distribution by region", draw);
    const show = () => {
      const better = { low: " Lower is better.", high: " Higher is better.", "": "" };
      meaning.textContent = `${found.label}: ${found.meaning}.${better[found.better]}`;
      legend.replaceChildren(deltah.legend(regions,
        found.medians.map((value) => (value === null ? "–" : deltah.three(value)))));
      again();
    };
    const select = deltah.byId("histogram-measure");
    histograms.forEach(({ label }, n) => {
      select.append(deltah.make("option", { value: n, text: label }));
    });
    select.addEventListener("change", () => {
      found = histograms[Number(select.value)];
      show();
    });
    show();
  };

  const startLinearity = ({ regions, linearity, strengthOf }) => {
    const place = deltah.byId("linearity");
    if (!place || !linearity?.length) return;
    const lines = linearity.map(({ region, points }) => {
      const all = points.map((point) => [...point]);
      // Without an edit there is no change: the line passes through (0, 0).
      if (!all.some(([strength]) => strength === 0)) all.push([0, 0, 0, 0]);
      return { region, points: all.sort((a, b) => a[0] - b[0]) };
    });
    const strengths = lines.flatMap(({ points }) => points.map(([strength]) => strength));
    deltah.chart(place, "Change in the region over strength", (svg, width, height) => {
      const frame = deltah.frame(width, height);
      const [low, high] = [Math.min(...strengths), Math.max(...strengths)];
      const pad = 0.04 * (high - low);
      const x = deltah.scale(low - pad, high + pad, frame.left, frame.right,
        { most: width < 400 ? 4 : 6 });
      const distinct = [...new Set(strengths)];
      if (distinct.length <= (width < 400 ? 5 : 7)) x.ticks = distinct;
      const top = 1.05 * Math.max(...lines.flatMap(({ points }) => points.map((p) => p[3])));
      const y = deltah.scale(0, top, frame.bottom, frame.top, { most: 5 });
      deltah.drawAxes(svg, frame, x, y, {
        nameX: `strength (${strengthOf})`, nameY: "change in the region",
        textX: deltah.signed, textY: deltah.short,
      });
      const path = (points, n) => points.map(
        (point) => `${x.at(point[0]).toFixed(1)},${y.at(point[n]).toFixed(1)}`).join("L");
      for (const { region, points } of lines) {
        const back = [...points].reverse();
        svg.append(
          deltah.svg("path", { d: `M${path(points, 1)}L${path(back, 3)}Z`, class: `band c${region}` }),
          deltah.svg("path", { d: `M${path(points, 2)}`, class: `line c${region}` }));
        for (const point of points) {
          svg.append(deltah.svg("circle", {
            cx: x.at(point[0]), cy: y.at(point[2]), r: 3.2, class: `dot c${region}`,
          }));
        }
      }
    });
    place.after(deltah.legend(regions, null));
  };

  const startLocality = ({ regions, locality }) => {
    const place = deltah.byId("locality");
    if (!place || !locality?.x.length) return;
    deltah.chart(place, "Change outside over change inside", (svg, width, height) => {
      const frame = deltah.frame(width, height);
      const range = (values) => [Math.min(...values) / 1.15, Math.max(...values) * 1.15];
      const most = width < 400 ? 4 : 6;
      const x = deltah.scale(...range(locality.x), frame.left, frame.right, { log: true, most });
      const [low, high] = range(locality.y);
      const y = deltah.scale(low, high, frame.bottom, frame.top, { log: true, most });
      deltah.drawAxes(svg, frame, x, y, {
        nameX: "change inside the region", nameY: "change outside", textX: deltah.short,
        textY: deltah.short,
      });
      const [left, right] = range(locality.x);
      for (const roir of [1, 0.1]) {
        const ends = [Math.max(left, low / roir), Math.min(right, high / roir)];
        if (ends[0] >= ends[1]) continue;
        svg.append(deltah.svg("line", {
          x1: x.at(ends[0]), y1: y.at(roir * ends[0]), x2: x.at(ends[1]), y2: y.at(roir * ends[1]),
          class: "guide",
        }));
        svg.append(deltah.svg("text", {
          x: x.at(ends[1]) - 4, y: y.at(roir * ends[1]) + (roir * ends[1] > high / 1.3 ? 14 : -5),
          "text-anchor": "end", class: "guide-name",
        }, `ROIR ${roir}`));
      }
      locality.x.forEach((value, n) => svg.append(deltah.svg("circle", {
        cx: x.at(value).toFixed(1), cy: y.at(locality.y[n]).toFixed(1), r: 2.6,
        class: `point c${locality.region[n]}`,
      })));
    });
    const shown = locality.x.length < locality.edits
      ? deltah.make("p", { class: "muted small",
        text: `${deltah.count(locality.x.length)} of ${deltah.count(locality.edits)} edits.` })
      : null;
    place.after(deltah.legend(regions, null), ...(shown ? [shown] : []));
  };

  deltah.startCharts = () => {
    const { charts } = deltah.summary;
    if (!charts.histograms) return;
    startHistograms(charts);
    startLinearity(charts);
    startLocality(charts);
  };
}
