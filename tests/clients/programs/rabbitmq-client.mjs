// The everyday work of rabbitmq-client, on the broker whose URL is the argument. When it says "cut", its connections are
// to be cut, and it goes on. Ends with status 0 if all was as it should be.
import assert from 'node:assert/strict'
import { Connection } from 'rabbitmq-client'

const rabbit = new Connection({ url: process.argv[2], retryLow: 50, retryHigh: 100 })
let connections = 0
rabbit.on('connection', () => connections++)
rabbit.on('error', () => {}) // it connects again by itself

// Publish with confirms. A mandatory message that no queue takes comes back.
const publisher = rabbit.createPublisher({
  confirm: true,
  maxAttempts: 20,
  exchanges: [{ exchange: 'orders', type: 'topic', durable: true }, { exchange: 'dead', type: 'fanout' }],
})
const returned = new Promise(resolve => publisher.once('basic.return', resolve))
await publisher.send({ exchange: 'orders', routingKey: 'nobody', mandatory: true }, 'lost?')
const back = await returned
assert.deepEqual([back.replyCode, back.body], [312, 'lost?'])

// Consume with prefetch. What the handler throws, and what it drops, becomes a dead letter.
let inFlight = 0, most = 0
const seen = [], waiting = []
const until = condition => new Promise(resolve => waiting.push([condition, resolve]))
const look = () => waiting.filter(([condition]) => condition()).forEach(([, resolve]) => resolve())
const consumer = rabbit.createConsumer({
  queue: 'jobs',
  queueOptions: { durable: true, arguments: { 'x-dead-letter-exchange': 'dead' } },
  queueBindings: [{ exchange: 'orders', routingKey: 'order.*' }],
  exchanges: [{ exchange: 'dead', type: 'fanout' }],
  qos: { prefetchCount: 4 },
  requeue: false,
}, async message => {
  most = Math.max(most, ++inFlight)
  await new Promise(setImmediate)
  inFlight--
  seen.push(message.body.n)
  setImmediate(look)
  if (message.body.n % 3 === 0) throw new Error('that three divides')
})
consumer.on('error', () => {}) // what handlers throw
await new Promise(resolve => consumer.once('ready', resolve))
await rabbit.queueDeclare({ queue: 'dead', durable: true })
await rabbit.queueBind({ queue: 'dead', exchange: 'dead', routingKey: '' })
for (let n = 0; n < 20; n++) await publisher.send({ exchange: 'orders', routingKey: 'order.placed' }, { n })
await until(() => seen.length >= 20)
assert.deepEqual(seen, [...Array(20).keys()])
assert.ok(most <= 4)

// A connection that is cut is taken up again: the consumer goes on, and so does the publisher.
const again = new Promise(resolve => consumer.once('ready', resolve))
console.log('cut')
await again
await publisher.send({ exchange: 'orders', routingKey: 'order.placed', durable: true }, { n: 20 })
await until(() => seen.includes(20))
assert.equal(connections, 2)

// The dead letters tell where they come from.
const dead = []
for (let message; (message = await rabbit.basicGet({ queue: 'dead', noAck: true }));) dead.push(message)
assert.deepEqual(dead.map(each => each.body.n), [0, 3, 6, 9, 12, 15, 18])
assert.equal(dead[0].headers['x-death'][0].queue, 'jobs')

// A question and its answer, by direct reply-to.
const server = rabbit.createConsumer({ queue: 'questions', queueOptions: { queue: 'questions' } },
  async (message, answer) => answer(`${message.body}!`))
const client = rabbit.createRPCClient({ confirm: true })
await new Promise(resolve => server.once('ready', resolve))
const replies = await Promise.all(['well', 'so'].map(text => client.send('questions', text)))
assert.deepEqual(replies.map(each => each.body), ['well!', 'so!'])
await client.close()
await server.close()

await consumer.close()
await publisher.close()
await rabbit.close()
console.log('done')
