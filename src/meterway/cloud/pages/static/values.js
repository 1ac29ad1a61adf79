// What a meter's newest values mean.

const KILO = { W: 0.001, kW: 1, MW: 1000, Wh: 0.001, kWh: 1, MWh: 1000 };

function find(meter, name) {
  return meter.lastReading?.propertyValues.find((value) => value.propertyName === name && value.numericalValue != null);
}

/** A property in kW or kWh, or null. */
export function kilo(meter, name) {
  const value = find(meter, name);
  return value && KILO[value.unit] ? value.numericalValue * KILO[value.unit] : null;
}

/** Net power in kW, positive for import; null if the meter does not say. */
export function netPower(meter) {
  const signed = kilo(meter, "OBIS_16.7.0");
  const taken = kilo(meter, "OBIS_1.7.0");
  const given = kilo(meter, "OBIS_2.7.0");
  if (taken !== null && given !== null) return taken - given;
  return signed ?? taken ?? (given === null ? null : -given);
}

/** The registers of all tariffs together, where the meter has no total (as DSMR meters). */
function energyTaken(meter) {
  const tariffs = (meter.lastReading?.propertyValues ?? []).filter((value) => /^OBIS_1\.8\.[1-9]/.test(value.propertyName));
  if (!tariffs.length || tariffs.some((value) => value.unit !== tariffs[0].unit)) return null;
  return { numericalValue: tariffs.reduce((sum, value) => sum + value.numericalValue, 0), unit: tariffs[0].unit };
}

/** The register that says most: energy taken, of a heat meter its heat, else the first volume, energy or number. */
export function mainValue(meter) {
  const values = (meter.lastReading?.propertyValues ?? []).filter((value) => value.numericalValue != null);
  return (
    find(meter, "OBIS_1.8.0") ??
    energyTaken(meter) ??
    find(meter, "HEAT_energy") ??
    find(meter, "COOLING_energy") ??
    values.find((value) => value.unit === "m3") ??
    values.find((value) => /Wh$|J$/.test(value.unit ?? "")) ??
    values[0] ??
    null
  );
}

/** Why the newest reading is doubtful, the gravest first: words of docs/plausibility.md, or a foreign sender's. */
export function doubts(meter) {
  return (meter.lastReading?.faultCode ?? "").split(",").filter(Boolean);
}

export const isPower = (value) => /^[kM]?W$/.test(value?.unit ?? "");

export function title(meter) {
  return meter.name ?? meter.meterId;
}

/** Seconds since the meter's newest reading was stored; Infinity without one. */
export function ageOf(meter, now) {
  const at = meter.lastReading?.storedTime ?? meter.lastReading?.readingTime;
  return at ? Math.max(0, (now - Date.parse(at)) / 1000) : Infinity;
}

/** The state as of now: an online meter becomes silent by itself. */
export function stateOf(meter, now) {
  return meter.state === "online" && ageOf(meter, now) > meter.lateAfterS ? "silent" : meter.state;
}
