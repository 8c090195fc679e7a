// Deliver webhooks: `node worker.mjs CONCURRENCY`. Lines on stdin: pause, resume, stop.
import { createInterface } from 'node:readline';
import { Worker } from 'bullmq';
import { connection, QUEUE } from './queue.mjs';

const RECEIVER = process.env.BENCHMARK_URL;
const TIMEOUT_MS = 10000;

const log = (text) => console.log(`${new Date().toISOString()} INFO ${text}`);

async function deliver(job) {
  log(`delivery ${job.id} received`);
  const { event, timestamp, payload } = job.data;
  const body = JSON.stringify({ id: job.id, eventName: event, timestamp, payload });
  const headers = {
    'Content-Type': 'application/json',
    'User-Agent': 'webhooks-bullmq/1.0',
    'X-Immich-Event': event,
    'X-Immich-Delivery-Id': job.id,
    'X-Immich-Timestamp': timestamp,
  };
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), TIMEOUT_MS);
  const started = performance.now();
  try {
    const response = await fetch(RECEIVER, {
      method: 'POST', headers, body, signal: abort.signal, redirect: 'manual',
    });
    await response.arrayBuffer();
    if (!response.ok) throw new Error(`status ${response.status}`);
    log(`delivery ${job.id} succeeded in ${performance.now() - started} ms: ${response.status}`);
  } finally {
    clearTimeout(timer);
  }
}

const worker = new Worker(QUEUE, deliver, {
  connection: connection(), concurrency: Number(process.argv[2]),
});
worker.on('error', (error) => log(`error ${error}`));
worker.on('failed', (job, error) => log(`delivery ${job?.id} failed: ${error}`));
await worker.waitUntilReady();
log('ready.');

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'pause') await worker.pause();
  if (line === 'resume') worker.resume();
  if (line === 'stop') break;
  log(`${line} done.`);
}
await worker.close();
process.exit(0);
