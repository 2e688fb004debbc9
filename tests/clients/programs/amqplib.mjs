// The everyday work of amqplib, on the broker whose URL is the argument. Ends with status 0 if all was as it should be.
import assert from 'node:assert/strict'
import amqp from 'amqplib'

const connection = await amqp.connect(process.argv[2])
const channel = await connection.createConfirmChannel()

// Declare: a queue whose rejected messages go to another one.
await channel.assertExchange('orders', 'topic', { durable: true })
await channel.assertExchange('dead', 'fanout', { durable: true })
await channel.assertQueue('dead', { durable: true })
await channel.bindQueue('dead', 'dead', '')
await channel.assertQueue('jobs', { durable: true, arguments: { 'x-dead-letter-exchange': 'dead' } })
await channel.bindQueue('jobs', 'orders', 'order.*')

// Publish with confirms.
for (let n = 0; n < 20; n++) {
  channel.publish('orders', 'order.placed', Buffer.from(JSON.stringify({ n })), {
    persistent: true, contentType: 'application/json', messageId: String(n), headers: { n, nested: { list: [1, 'two'] } },
  })
}
await channel.waitForConfirms()
assert.equal((await channel.checkQueue('jobs')).messageCount, 20)

// A mandatory message that no queue takes comes back, and is confirmed then.
const returned = new Promise(resolve => channel.once('return', resolve))
channel.publish('orders', 'nobody', Buffer.from('lost?'), { mandatory: true })
await channel.waitForConfirms()
const back = await returned
assert.equal(back.fields.replyCode, 312)
assert.equal(back.content.toString(), 'lost?')

// Consume with prefetch: never more than four at a time. Those that three divides become dead letters.
await channel.prefetch(4)
let inFlight = 0, most = 0
await new Promise((resolve, reject) => {
  const seen = []
  channel.consume('jobs', message => {
    const { n } = JSON.parse(message.content)
    most = Math.max(most, ++inFlight)
    assert.deepEqual(message.properties.headers, { n, nested: { list: [1, 'two'] } })
    setImmediate(() => {
      inFlight--
      if (n % 3) channel.ack(message)
      else channel.nack(message, false, false)
      seen.push(n)
      if (seen.length === 20) resolve(assert.deepEqual(seen, [...Array(20).keys()]))
    })
  }, { consumerTag: 'worker' }).catch(reject)
})
assert.equal(most, 4)
await channel.cancel('worker')

// What a consumer gives back is delivered again, and says so.
await channel.sendToQueue('jobs', Buffer.from('again'))
await channel.waitForConfirms()
const first = await channel.get('jobs')
assert.equal(first.fields.redelivered, false)
channel.nack(first, false, true)
const second = await channel.get('jobs')
assert.equal(second.fields.redelivered, true)
channel.ack(second)
assert.equal(await channel.get('jobs'), false)

// The dead letters tell where they come from.
const dead = []
for (let message; (message = await channel.get('dead', { noAck: true }));) dead.push(message)
assert.deepEqual(dead.map(each => each.fields.routingKey), Array(7).fill('order.placed'))
const [death] = dead[0].properties.headers['x-death']
assert.deepEqual([death.queue, death.reason, death.count], ['jobs', 'rejected', 1])

// An error of the channel leaves the connection open.
const other = await connection.createChannel()
const refused = new Promise(resolve => other.once('error', resolve))
await assert.rejects(other.checkQueue('missing'), /NOT-FOUND|NOT_FOUND/)
assert.match(String(await refused), /404/)

// A question and its answer, by a queue that is exclusive.
await channel.assertQueue('questions')
await channel.consume('questions', message => {
  const { replyTo, correlationId } = message.properties
  channel.sendToQueue(replyTo, Buffer.from(`${message.content}!`), { correlationId })
}, { noAck: true })
const { queue } = await channel.assertQueue('', { exclusive: true })
const answer = new Promise(resolve => channel.consume(queue, resolve, { noAck: true }))
channel.sendToQueue('questions', Buffer.from('well'), { replyTo: queue, correlationId: 'c1' })
const got = await answer
assert.deepEqual([got.content.toString(), got.properties.correlationId], ['well!', 'c1'])

// The same by direct reply-to: the consumer comes before the question, on the same channel.
const direct = await connection.createChannel()
const replied = new Promise((resolve, reject) =>
  direct.consume('amq.rabbitmq.reply-to', resolve, { noAck: true }).catch(reject))
direct.sendToQueue('questions', Buffer.from('how'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: 'c2' })
const reply = await replied
assert.deepEqual([reply.content.toString(), reply.properties.correlationId], ['how!', 'c2'])
assert.match(reply.fields.routingKey, /^amq\.rabbitmq\.reply-to\../)
await direct.close()

await channel.close()
await connection.close()
console.log('done')
