// Decodes Sparkplug messages with a library of others: reads lines of JSON with
// topic and payload (base64), writes lines of JSON with what it made of them.
// The argument is the folder whose node_modules has sparkplug-payload.
const { createRequire } = require("node:module");
const readline = require("node:readline");

const from = createRequire(process.argv[2] + "/");
const { decodePayload } = from("sparkplug-payload").get("spBv1.0");
const raw = from("sparkplug-payload/lib/sparkplugPayloadProto").org.eclipse.tahu.protobuf.Payload;

const number = (v) => (v === undefined || v === null ? null : Number(v));
const has = (o, k) => Object.prototype.hasOwnProperty.call(o, k);

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { topic, payload } = JSON.parse(line);
  const bytes = Buffer.from(payload, "base64");
  const p = decodePayload(bytes);
  const r = raw.decode(bytes);
  const metrics = (p.metrics ?? []).map((m, i) => ({
    name: m.name ?? "",
    alias: number(m.alias) ?? 0,
    ms: number(m.timestamp),
    type: m.type ?? "",
    typed: has(r.metrics[i], "datatype"),
    value: typeof m.value === "object" && m.value !== null ? Number(m.value) : m.value,
    // What a consumer reads that kept the type from the birth.
    double: has(r.metrics[i], "doubleValue") ? r.metrics[i].doubleValue : null,
    historical: m.isHistorical === true,
    null: r.metrics[i].isNull === true,
  }));
  console.log(JSON.stringify({ topic, ms: number(p.timestamp), seq: number(p.seq), metrics }));
});
