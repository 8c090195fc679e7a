// Queue deliveries and print their ids: `node emit.mjs PAYLOADS EVENT…`, a file with a JSON array.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Queue } from 'bullmq';
import { connection, QUEUE } from './queue.mjs';

const BATCH = 500;
const [file, ...events] = process.argv.slice(2);
const payloads = JSON.parse(readFileSync(file, 'utf8'));
const queue = new Queue(QUEUE, { connection: connection() });
const ids = [];
for (let first = 0; first < payloads.length; first += BATCH) {
  const jobs = payloads.slice(first, first + BATCH).map((payload, number) => {
    const id = randomUUID();
    ids.push(id);
    return {
      name: 'delivery',
      data: {
        hook: 'receiver',
        event: events[(first + number) % events.length],
        timestamp: new Date().toISOString(),
        payload,
      },
      opts: {
        jobId: id,
        attempts: 3,
        backoff: { type: 'exponential', delay: 2000 },
        removeOnComplete: true,
      },
    };
  });
  await queue.addBulk(jobs);
}
await queue.close();
process.stdout.write(JSON.stringify(ids), () => process.exit(0)); // a pipe takes it bit by bit
