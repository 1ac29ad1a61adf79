// Words for numbers, times and units, as people write them.

const UNITS = { m3: "m³", "m3/h": "m³/h", degreeCelsius: "°C", deg: "°" };
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clockSeconds = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const yearToo = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const numbers = new Map();

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export function unitName(unit) {
  return UNITS[unit] ?? unit ?? "";
}

/** A number with at most, and if `fixed` exactly, so many decimals. */
export function number(value, decimals = 3, fixed = false) {
  if (!Number.isFinite(value)) return "–";
  const key = `${decimals}${fixed}`;
  if (!numbers.has(key)) {
    const minimumFractionDigits = fixed ? decimals : 0;
    numbers.set(key, new Intl.NumberFormat(undefined, { maximumFractionDigits: decimals, minimumFractionDigits }));
  }
  return numbers.get(key).format(value);
}

/** Power in kW, as W below one kilowatt: [text, unit]. */
export function power(kilowatts) {
  const size = Math.abs(kilowatts);
  if (size < 0.9995) return [number(Math.abs(Math.round(kilowatts * 1000)), 0), "W"];
  return [number(size, size < 100 ? 2 : 1, true), "kW"];
}

export const quantity = (value, unit, decimals = 3) => `${number(value, decimals)} ${unitName(unit)}`.trim();
export const hourMinute = (date) => clock.format(date);
export const hourMinuteSecond = (date) => clockSeconds.format(date);

/** How long ago, in the largest unit that says enough. */
export function age(seconds) {
  if (seconds < 1.5) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

/** Day and time, with the year where it is another one. */
export const moment = (date) => (date.getFullYear() === new Date().getFullYear() ? dayAndClock : yearToo).format(date);

export function bytes(size) {
  return size < 1000 ? `${size} B` : size < 1e6 ? `${number(size / 1000, 1)} kB` : `${number(size / 1e6, 1)} MB`;
}

/** The classic three columns: offset, hexadecimal, text. */
export function hexdump(data, limit = 512) {
  const lines = [];
  for (let at = 0; at < Math.min(data.length, limit); at += 16) {
    const row = [...data.subarray(at, Math.min(at + 16, limit))];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(47);
    const text = row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex}  ${text}`);
  }
  if (data.length > limit) lines.push(`… ${data.length - limit} bytes more`);
  return lines.join("\n");
}
