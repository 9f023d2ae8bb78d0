-- name: create_schema
DO $$ BEGIN
    IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF;
END $$

-- name: create_rows
CREATE TABLE IF NOT EXISTS {rows} (
    bucket bigint NOT NULL,
    boot_id text NOT NULL,
    model_name text NOT NULL,
    number bigint NOT NULL,
    counts jsonb NOT NULL,
    written_at timestamptz NOT NULL,
    folded jsonb,
    folded_at timestamptz,
    PRIMARY KEY (bucket, boot_id, model_name)
) WITH (fillfactor = 70)

-- name: create_votes
CREATE TABLE IF NOT EXISTS {votes} (
    vote text PRIMARY KEY,
    thread_id text NOT NULL,
    run_id text NOT NULL,
    user_id text NOT NULL,
    model_name text NOT NULL,
    sentiment smallint NOT NULL,
    voted_at timestamptz NOT NULL
)

-- name: create_votes_index
CREATE INDEX IF NOT EXISTS {votes_index} ON {votes} (model_name, sentiment, voted_at)

-- name: write
WITH dropped AS (
    DELETE FROM {rows} WHERE bucket > 0 AND bucket < %(oldest)s AND boot_id = %(boot_id)s
)
INSERT INTO {rows} AS stored (bucket, boot_id, model_name, number, counts, written_at)
SELECT bucket, %(boot_id)s, model_name, %(number)s, counts, clock_timestamp()
FROM unnest(%(buckets)s::bigint[], %(names)s::text[], %(counts)s::jsonb[]) AS new (bucket, model_name, counts)
ON CONFLICT (bucket, boot_id, model_name) DO UPDATE
SET number = excluded.number, counts = excluded.counts, written_at = excluded.written_at
WHERE excluded.number > stored.number

-- name: read
SELECT boot_id, model_name, counts, folded FROM {rows} WHERE bucket BETWEEN %(first)s AND %(last)s

-- name: read_votes
SELECT model_name, count(*) FILTER (WHERE sentiment > 0), count(*) FILTER (WHERE sentiment < 0),
    extract(epoch FROM max(voted_at))::float8
FROM {votes} GROUP BY model_name

-- name: vote
INSERT INTO {votes} AS stored (vote, thread_id, run_id, user_id, model_name, sentiment, voted_at)
VALUES (%(vote)s, %(thread_id)s, %(run_id)s, %(user_id)s, %(model_name)s, %(sentiment)s, clock_timestamp())
ON CONFLICT (vote) DO UPDATE
SET model_name = excluded.model_name, sentiment = excluded.sentiment, voted_at = excluded.voted_at
WHERE (stored.model_name, stored.sentiment) <> (excluded.model_name, excluded.sentiment)

-- name: unvote
DELETE FROM {votes} WHERE vote = %(vote)s

-- name: dead
SELECT boot_id, model_name, counts, folded FROM {rows}
WHERE bucket = 0 AND boot_id <> '' AND counts IS DISTINCT FROM folded
    AND written_at <= clock_timestamp() - make_interval(secs => %(dead_after)s)
ORDER BY boot_id, model_name
LIMIT %(most)s
FOR UPDATE

-- name: base
SELECT boot_id, model_name, counts, NULL FROM {rows}
WHERE bucket = 0 AND boot_id = '' AND model_name = ANY(%(names)s)

-- name: write_base
INSERT INTO {rows} AS stored (bucket, boot_id, model_name, number, counts, written_at)
SELECT 0, '', model_name, 1, counts, clock_timestamp()
FROM unnest(%(names)s::text[], %(counts)s::jsonb[]) AS new (model_name, counts)
ON CONFLICT (bucket, boot_id, model_name) DO UPDATE
SET number = stored.number + 1, counts = excluded.counts, written_at = excluded.written_at

-- name: mark_folded
UPDATE {rows} AS stored SET folded = stored.counts, folded_at = clock_timestamp()
FROM unnest(%(boots)s::text[], %(names)s::text[]) AS dead (boot_id, model_name)
WHERE stored.bucket = 0 AND stored.boot_id = dead.boot_id AND stored.model_name = dead.model_name

-- name: drop_folded
DELETE FROM {rows}
WHERE bucket = 0 AND counts = folded
    AND greatest(folded_at, written_at) < clock_timestamp() - make_interval(secs => %(kept)s)

-- name: drop_buckets
DELETE FROM {rows} WHERE bucket > 0 AND bucket < %(abandoned)s

-- name: create_circuits
CREATE TABLE IF NOT EXISTS {circuits} (
    model_name text PRIMARY KEY,
    version bigint NOT NULL,
    circuit jsonb NOT NULL
)

-- name: circuits
SELECT extract(epoch FROM clock_timestamp())::float8, model_name, version, circuit
FROM (SELECT) AS now LEFT JOIN {circuits} ON true

-- name: swap_circuit
INSERT INTO {circuits} AS stored (model_name, version, circuit)
VALUES (%(model_name)s, %(version)s + 1, %(circuit)s::jsonb)
ON CONFLICT (model_name) DO UPDATE SET version = excluded.version, circuit = excluded.circuit
WHERE stored.version = %(version)s
