-- name: create_rows
CREATE TABLE IF NOT EXISTS {rows} (
    bucket INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    model_name TEXT NOT NULL,
    number INTEGER NOT NULL,
    counts TEXT NOT NULL,
    written_at REAL NOT NULL,
    folded TEXT,
    folded_at REAL,
    PRIMARY KEY (bucket, boot_id, model_name)
) WITHOUT ROWID

-- name: create_votes
CREATE TABLE IF NOT EXISTS {votes} (
    vote TEXT PRIMARY KEY,
    thread_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    model_name TEXT NOT NULL,
    sentiment INTEGER NOT NULL,
    voted_at REAL NOT NULL
) WITHOUT ROWID

-- name: create_votes_index
CREATE INDEX IF NOT EXISTS {votes_index} ON {votes} (model_name, sentiment, voted_at)

-- name: write
INSERT INTO {rows} (bucket, boot_id, model_name, number, counts, written_at)
VALUES (:bucket, :boot_id, :model_name, :number, :counts, :now)
ON CONFLICT (bucket, boot_id, model_name) DO UPDATE
SET number = excluded.number, counts = excluded.counts, written_at = excluded.written_at
WHERE excluded.number > number

-- name: drop_own_buckets
DELETE FROM {rows} WHERE bucket > 0 AND bucket < :oldest AND boot_id = :boot_id

-- name: read
SELECT boot_id, model_name, counts, folded FROM {rows} WHERE bucket BETWEEN :first AND :last

-- name: read_votes
SELECT model_name, sum(sentiment > 0), sum(sentiment < 0), max(voted_at) FROM {votes} GROUP BY model_name

-- name: vote
INSERT INTO {votes} (vote, thread_id, run_id, user_id, model_name, sentiment, voted_at)
VALUES (:vote, :thread_id, :run_id, :user_id, :model_name, :sentiment, :now)
ON CONFLICT (vote) DO UPDATE
SET model_name = excluded.model_name, sentiment = excluded.sentiment, voted_at = excluded.voted_at
WHERE excluded.model_name <> model_name OR excluded.sentiment <> sentiment

-- name: unvote
DELETE FROM {votes} WHERE vote = :vote

-- name: dead
SELECT boot_id, model_name, counts, folded FROM {rows}
WHERE bucket = 0 AND boot_id <> '' AND written_at <= :dead AND counts IS NOT folded

-- name: mark_folded
UPDATE {rows} SET folded = counts, folded_at = :now WHERE bucket = 0 AND boot_id = :boot_id AND model_name = :model_name

-- name: base
SELECT counts FROM {rows} WHERE bucket = 0 AND boot_id = '' AND model_name = :model_name

-- name: write_base
INSERT INTO {rows} (bucket, boot_id, model_name, number, counts, written_at) VALUES (0, '', :model_name, 1, :counts, :now)
ON CONFLICT (bucket, boot_id, model_name) DO UPDATE
SET number = number + 1, counts = excluded.counts, written_at = excluded.written_at

-- name: drop_folded
DELETE FROM {rows} WHERE bucket = 0 AND folded_at < :forgotten AND written_at < :forgotten AND counts IS folded

-- name: drop_buckets
DELETE FROM {rows} WHERE bucket > 0 AND bucket < :abandoned

-- name: create_circuits
CREATE TABLE IF NOT EXISTS {circuits} (
    model_name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    circuit TEXT NOT NULL
) WITHOUT ROWID

-- name: circuits
SELECT model_name, version, circuit FROM {circuits}

-- name: swap_circuit
INSERT INTO {circuits} (model_name, version, circuit) VALUES (:model_name, :version + 1, :circuit)
ON CONFLICT (model_name) DO UPDATE SET version = excluded.version, circuit = excluded.circuit
WHERE version = :version
