// The peer of `make bench-serve-node`: the Open Inference Protocol on Node with
// onnxruntime-node, written as one would write it without tuning.
// usage: node node-server.cjs PORT name=path...   (NODE_PATH names the modules)
const http = require('http')
const ort = require('onnxruntime-node')

const types = { FP32: ['float32', Float32Array], INT64: ['int64', BigInt64Array] }
const sessions = {}

function binaryInputs(head, body, at) {
  const feeds = {}
  for (const t of head.inputs) {
    const [type, Array_] = types[t.datatype]
    const n = t.parameters.binary_data_size
    // A copy, for the bytes are not aligned.
    const bytes = new Uint8Array(body.subarray(at, at + n))
    feeds[t.name] = new ort.Tensor(type, new Array_(bytes.buffer), t.shape)
    at += n
  }
  return feeds
}

function jsonInputs(request) {
  const feeds = {}
  for (const t of request.inputs) {
    const [type, Array_] = types[t.datatype]
    feeds[t.name] = new ort.Tensor(type, type === 'int64' ? Array_.from(t.data, BigInt) : Array_.from(t.data), t.shape)
  }
  return feeds
}

async function infer(model, headLength, body) {
  const binary = headLength !== undefined
  const head = JSON.parse(body.toString('utf8', 0, binary ? Number(headLength) : body.length))
  const feeds = binary ? binaryInputs(head, body, Number(headLength)) : jsonInputs(head)
  const results = await sessions[model].run(feeds)
  const outputs = []
  const tail = []
  for (const [name, t] of Object.entries(results)) {
    const o = { name, datatype: 'FP32', shape: t.dims }
    if (binary) {
      const bytes = Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength)
      o.parameters = { binary_data_size: bytes.length }
      tail.push(bytes)
    } else {
      o.data = Array.from(t.data)
    }
    outputs.push(o)
  }
  const text = Buffer.from(JSON.stringify({ model_name: model, model_version: '1', outputs }))
  return [text, tail]
}

async function main() {
  const [port, ...models] = process.argv.slice(2)
  for (const m of models) {
    const [name, path] = m.split('=')
    sessions[name] = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 })
  }
  const server = http.createServer((req, res) => {
    const chunks = []
    req.on('data', (c) => chunks.push(c))
    req.on('end', async () => {
      try {
        const [text, tail] = await infer(req.url.split('/')[3], req.headers['inference-header-content-length'], Buffer.concat(chunks))
        const body = Buffer.concat([text, ...tail])
        res.writeHead(200, { 'Content-Length': body.length, 'Inference-Header-Content-Length': text.length })
        res.end(body)
      } catch (err) {
        const body = String(err)
        res.writeHead(500, { 'Content-Length': Buffer.byteLength(body) })
        res.end(body)
      }
    })
  })
  server.listen(Number(port), '127.0.0.1', () => console.log('ready'))
}

main()
