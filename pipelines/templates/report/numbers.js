"use strict";
// How numbers are written: as in the tables that the page brings with it.

/** Three significant digits; a dash for none. */
deltah.three = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(3));
  const size = Math.abs(rounded);
  if (size < 1e-4) {
    const [digits, power] = rounded.toExponential(2).split("e-");
    return `${digits.replace("-", "−")}e−${power.padStart(2, "0")}`;
  }
  const digits = Math.max(0, 2 - Math.floor(Math.log10(size)));
  return rounded.toLocaleString("en", {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  }).replace("-", "−");
};

/** A strength: +0.1, −0.05. */
deltah.signed = (value) => {
  const text = String(Number(Math.abs(value).toPrecision(6)));
  return value > 0 ? `+${text}` : value < 0 ? `−${text}` : "0";
};

deltah.count = (value) => value.toLocaleString("en");

/** A number as a short tick or field: no more digits than it needs. */
deltah.short = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

/** How a column of a table writes a value. */
deltah.written = (kind, value) => {
  if (typeof value === "number" && Number.isNaN(value)) return "–";
  if (kind === "number") return deltah.three(value);
  if (kind === "signed") return deltah.signed(value);
  if (kind === "whole") return deltah.count(value);
  return value ?? "–";
};
