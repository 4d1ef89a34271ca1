// A client program on kafkajs; README.md in the folder above describes its commands.
'use strict'

const fs = require('fs')
const { parseArgs } = require('util')
const kafkajs = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4js')
const { ZstdCodec } = require('zstd-codec')

const { CompressionTypes, CompressionCodecs, Kafka, logLevel } = kafkajs
const DEADLINE_MS = 60000
const BATCH_RECORDS = 1000
const TRANSACTION_RECORDS = 200

// kafkajs brings gzip; the others are registered, as its manual says. lz4js reads every LZ4 frame, but its own frames have
// dependent blocks, which Kafka refuses: this program reads LZ4 and does not write it.
CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async () => { throw new Error('LZ4 is read only') },
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
})
// The streaming form: librdkafka's frames do not name their content's size.
const zstd = new Promise((resolve) => ZstdCodec.run((codec) => resolve(new codec.Streaming())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async (buffer) => {
    const output = (await zstd).decompress(buffer)
    if (!output) throw new Error('not a zstd frame')
    return Buffer.from(output)
  },
})
const CODECS = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }

// A file's lines as buffers, without their line feeds.
function lines (path) {
  const content = fs.readFileSync(path)
  const found = []
  for (let from = 0; from < content.length;) {
    const end = content.indexOf(10, from)
    const to = end < 0 ? content.length : end
    found.push(content.subarray(from, to))
    from = to + 1
  }
  return found
}

async function produce (kafka, options, files) {
  const producer = kafka.producer({ idempotent: options.idempotent, allowAutoTopicCreation: true })
  await producer.connect()
  for (const pair of files) {
    const [topic, path] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
    const values = lines(path)
    for (let from = 0; from < values.length; from += BATCH_RECORDS) {
      const messages = values.slice(from, from + BATCH_RECORDS).map((value) => ({ value }))
      await producer.send({ topic, acks: -1, compression: CompressionTypes[CODECS[options.codec]], messages })
    }
  }
  await producer.disconnect()
}

// Each piece of a file is aborted first, then committed.
async function transact (kafka, options, files) {
  const producer = kafka.producer({ transactionalId: options.id, idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (const pair of files) {
    const [topic, path] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
    const values = lines(path)
    for (let from = 0; from < values.length; from += TRANSACTION_RECORDS) {
      const piece = values.slice(from, from + TRANSACTION_RECORDS)
      for (const committed of [false, true]) {
        const transaction = await producer.transaction()
        const prefix = Buffer.from(committed ? '' : 'aborted ')
        const messages = piece.map((value) => ({ value: Buffer.concat([prefix, value]) }))
        await transaction.send({ topic, acks: -1, messages })
        await (committed ? transaction.commit() : transaction.abort())
      }
    }
  }
  await producer.disconnect()
}

// kafkajs reads in groups only: without one asked for, a group of its own that never commits.
async function consume (kafka, options, [folder, ...topics]) {
  const groupId = options.group || `unused-${process.pid}-${Date.now()}`
  const readUncommitted = !options.committed
  const consumer = kafka.consumer({ groupId, allowAutoTopicCreation: false, readUncommitted })
  const wanted = Number(options.count)
  const positions = new Map()
  let read = 0
  await consumer.connect()
  await consumer.subscribe({ topics, fromBeginning: true })
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`read ${read} of ${wanted} records in time`)), DEADLINE_MS).unref()
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ topic, partition, message }) => {
        if (read >= wanted) return
        fs.appendFileSync(`${folder}/${topic}-${partition}`, Buffer.concat([message.value, Buffer.from('\n')]))
        positions.set(`${topic}-${partition}`, { topic, partition, offset: String(BigInt(message.offset) + 1n) })
        read += 1
        if (read === wanted) resolve()
      },
    }).catch(reject)
  })
  if (options.group) await consumer.commitOffsets([...positions.values()])
  await consumer.disconnect()
}

async function withAdmin (kafka, body) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await body(admin)
  } finally {
    await admin.disconnect()
  }
}

async function offsets (kafka, options, [topic]) {
  const time = Number(options.time)
  const found = {}
  await withAdmin(kafka, async (admin) => {
    const entries = time < 0 ? await admin.fetchTopicOffsets(topic) : await admin.fetchTopicOffsetsByTimestamp(topic, time)
    for (const entry of entries) {
      found[entry.partition] = Number(time === -1 ? entry.high : time === -2 ? entry.low : entry.offset)
    }
  })
  console.log(JSON.stringify(found))
}

async function create (kafka, options, [topic]) {
  const configEntries = (options.config || []).map((pair) => {
    const [name, value] = pair.split('=')
    return { name, value }
  })
  const numPartitions = Number(options.partitions)
  await withAdmin(kafka, async (admin) => {
    const created = await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, configEntries }] })
    if (!created) throw new Error(`${topic} was there already`)
  })
}

async function describe (kafka, options, [topic]) {
  await withAdmin(kafka, async (admin) => {
    if (!(await admin.listTopics()).includes(topic)) {
      console.log('null')
      return
    }
    const metadata = await admin.fetchTopicMetadata({ topics: [topic] })
    const resources = [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic }]
    const described = await admin.describeConfigs({ resources, includeSynonyms: false })
    const entries = described.resources[0].configEntries
    const config = Object.fromEntries(entries.map((entry) => [entry.configName, entry.configValue]))
    console.log(JSON.stringify({ partitions: metadata.topics[0].partitions.length, config }))
  })
}

async function remove (kafka, options, [topic]) {
  await withAdmin(kafka, (admin) => admin.deleteTopics({ topics: [topic] }))
}

async function main () {
  const text = { type: 'string' }
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    args: process.argv.slice(2).map((word, at, words) => (words[at - 1] === '--time' ? ` ${word}` : word)),
    options: {
      bootstrap: text, codec: text, group: text, count: text, time: text, partitions: text, id: text,
      idempotent: { type: 'boolean', default: false },
      committed: { type: 'boolean', default: false }, config: { type: 'string', multiple: true },
    },
  })
  const commands = { produce, transact, consume, offsets, create, describe, delete: remove }
  const [name, ...words] = positionals
  const kafka = new Kafka({ clientId: 'kafkajs', brokers: [values.bootstrap], logLevel: logLevel.ERROR })
  await commands[name](kafka, values, words)
}

main().then(() => process.exit(0), (error) => {
  console.error(error.stack || error)
  process.exit(1)
})
