export const QUEUE = 'deliveries';

// maxRetriesPerRequest: what BullMQ asks of a worker's connection.
export function connection() {
  const url = new URL(process.env.CELERY_BROKER_URL);
  return {
    host: url.hostname,
    port: Number(url.port),
    db: Number(url.pathname.slice(1)),
    maxRetriesPerRequest: null,
  };
}
