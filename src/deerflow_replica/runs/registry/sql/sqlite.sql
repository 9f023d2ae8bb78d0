-- name: create_threads
CREATE TABLE IF NOT EXISTS {threads} (
    thread_id TEXT PRIMARY KEY,
    user_id TEXT,
    status TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    config TEXT NOT NULL,
    "values" TEXT,
    interrupts TEXT NOT NULL,
    error TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    state_updated_at REAL NOT NULL
)

-- name: create_runs
CREATE TABLE IF NOT EXISTS {runs} (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    thread_id TEXT NOT NULL REFERENCES {threads} ON DELETE CASCADE,
    assistant_id TEXT,
    status TEXT NOT NULL,
    metadata TEXT NOT NULL,
    kwargs TEXT NOT NULL,
    multitask_strategy TEXT NOT NULL,
    error TEXT,
    owner TEXT NOT NULL,
    fence INTEGER NOT NULL,
    lease_until REAL NOT NULL,
    cancel_action TEXT,
    closed INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
)

-- name: create_runs_by_thread
CREATE INDEX IF NOT EXISTS {runs_by_thread} ON {runs} (thread_id, seq)

-- name: create_runs_by_lease
CREATE INDEX IF NOT EXISTS {runs_by_lease} ON {runs} (lease_until) WHERE NOT closed

-- name: columns_of
SELECT name FROM pragma_table_info(:table)

-- name: add_resting
ALTER TABLE {threads} ADD COLUMN resting TEXT

-- name: add_keep_seconds
ALTER TABLE {threads} ADD COLUMN keep_seconds REAL

-- name: add_expires_at
ALTER TABLE {threads} ADD COLUMN expires_at REAL

-- name: add_is_rolled_back
ALTER TABLE {runs} ADD COLUMN is_rolled_back INTEGER NOT NULL DEFAULT 0

-- name: add_due_at
ALTER TABLE {runs} ADD COLUMN due_at REAL

-- name: add_replaced
ALTER TABLE {runs} ADD COLUMN replaced TEXT

-- name: create_runs_unfinished
CREATE INDEX IF NOT EXISTS {runs_unfinished} ON {runs} (thread_id, seq) WHERE status IN ('pending', 'running')

-- name: create_threads_by_expiry
CREATE INDEX IF NOT EXISTS {threads_by_expiry} ON {threads} (expires_at) WHERE expires_at IS NOT NULL

-- name: get_run
SELECT * FROM {runs} WHERE run_id = :run_id AND NOT is_rolled_back

-- name: get_owned
SELECT run.*, thread.user_id AS owning_user_id, thread.hidden AS in_hidden
FROM {runs} AS run JOIN {threads} AS thread ON thread.thread_id = run.thread_id
WHERE run_id IN (SELECT value FROM json_each(:ids)) AND NOT is_rolled_back

-- name: list_runs
SELECT * FROM {runs}
WHERE thread_id = :thread_id AND (:status IS NULL OR status = :status)
    AND NOT is_rolled_back
ORDER BY seq DESC LIMIT :limit OFFSET :offset

-- name: unfinished_of
SELECT run.run_id, run.thread_id, thread.hidden FROM {runs} AS run JOIN {threads} AS thread USING (thread_id)
WHERE NOT run.closed AND run.status IN ('pending', 'running') AND thread.user_id IS :user_id
    AND (:status IS NULL OR run.status = :status)
ORDER BY run.seq DESC

-- name: insert_run
INSERT INTO {runs} (run_id, thread_id, assistant_id, status, metadata, kwargs, multitask_strategy, owner, fence,
    lease_until, closed, created_at, updated_at, due_at, replaced)
SELECT :run_id, :thread_id, :assistant_id, :status, :metadata, :kwargs,
    :multitask_strategy, :owner, 1, :now + :lease_seconds, 0, :now, :now, :now + :after_seconds, :replaced
WHERE true
ON CONFLICT (run_id) DO NOTHING
RETURNING *

-- name: count_unfinished
SELECT count(*) AS unfinished,
    count(*) FILTER (WHERE status = 'running' OR due_at IS NULL OR due_at <= :now) AS ahead
FROM {runs}
WHERE thread_id = :thread_id AND status IN ('pending', 'running')

-- name: unfinished_ids
SELECT run_id FROM {runs}
WHERE thread_id = :thread_id AND status IN ('pending', 'running')
ORDER BY seq

-- name: first_in_line
SELECT run_id, owner FROM {runs} AS run
WHERE thread_id = :thread_id AND status = 'pending' AND (due_at IS NULL OR due_at <= :now)
    AND NOT EXISTS (
        SELECT 1 FROM {runs} AS other WHERE other.thread_id = run.thread_id AND other.status = 'running'
    )
ORDER BY seq LIMIT 1

-- name: begin_run
UPDATE {runs} AS run
SET status = 'running', updated_at = :now, lease_until = :now + :lease_seconds
WHERE run_id = :run_id AND owner = :owner AND fence = :fence AND status = 'pending'
    AND (due_at IS NULL OR due_at <= :now)
    AND NOT EXISTS (
        SELECT 1 FROM {runs} AS other
        WHERE other.thread_id = run.thread_id AND (other.status = 'running' OR (
            other.status = 'pending' AND other.seq < run.seq AND (other.due_at IS NULL OR other.due_at <= :now)
        ))
    )

-- name: status_under_lease
SELECT status FROM {runs} WHERE run_id = :run_id AND owner = :owner AND fence = :fence

-- name: renew
UPDATE {runs} SET lease_until = :now + :lease_seconds
WHERE NOT closed AND lease_until > :now AND (run_id, owner, fence) IN (
    SELECT run_ids.value, owners.value, fences.value
    FROM json_each(:run_ids) AS run_ids
    JOIN json_each(:owners) AS owners ON owners.key = run_ids.key
    JOIN json_each(:fences) AS fences ON fences.key = run_ids.key
)
RETURNING run_id, cancel_action

-- name: finish_run
UPDATE {runs} SET status = :status, error = :error, updated_at = :now
WHERE run_id = :run_id AND owner = :owner AND fence = :fence AND status = :was
    AND cancel_action IS NOT 'rollback'
RETURNING thread_id

-- name: roll_back_run
UPDATE {runs} SET status = 'interrupted', is_rolled_back = true, updated_at = :now
WHERE run_id = :run_id AND owner = :owner AND fence = :fence AND status = 'running'
RETURNING thread_id, replaced

-- name: cancel_pending
UPDATE {runs}
SET status = 'interrupted', is_rolled_back = (:action = 'rollback'), updated_at = :now
WHERE run_id = :run_id AND status = 'pending'
RETURNING thread_id, owner, replaced

-- name: cancel_running
UPDATE {runs}
SET cancel_action = CASE WHEN cancel_action = 'rollback' THEN cancel_action ELSE :action END
WHERE run_id = :run_id AND status = 'running'
RETURNING thread_id, owner, cancel_action

-- name: close_run
UPDATE {runs} SET closed = 1
WHERE run_id = :run_id AND status NOT IN ('pending', 'running')
RETURNING run_id

-- name: forget_rolled_back
DELETE FROM {runs} WHERE run_id = :run_id AND is_rolled_back AND closed

-- name: find_lapsed
SELECT run_id FROM {runs}
WHERE NOT closed AND lease_until <= :now
    AND (lease_until <= :now - :adoption_seconds OR NOT ((status = 'pending' AND assistant_id IS NOT NULL)
    OR (status = 'running' AND COALESCE(cancel_action = 'rollback', false))))
ORDER BY lease_until LIMIT :limit

-- name: find_adoptable
SELECT * FROM {runs}
WHERE NOT closed AND lease_until <= :now
    AND ((status = 'pending' AND assistant_id IS NOT NULL) OR (status = 'running' AND cancel_action = 'rollback'))
ORDER BY seq LIMIT :limit

-- name: adopt_run
UPDATE {runs} SET owner = :owner, fence = fence + 1, lease_until = :now + :lease_seconds
WHERE run_id = :run_id AND NOT closed AND lease_until <= :now
    AND ((status = 'pending' AND assistant_id IS NOT NULL) OR (status = 'running' AND cancel_action = 'rollback'))
RETURNING *

-- name: release_runs
UPDATE {runs} SET lease_until = :now, fence = fence + 1
WHERE status = 'pending' AND assistant_id IS NOT NULL AND (run_id, owner, fence) IN (
    SELECT run_ids.value, owners.value, fences.value
    FROM json_each(:run_ids) AS run_ids
    JOIN json_each(:owners) AS owners ON owners.key = run_ids.key
    JOIN json_each(:fences) AS fences ON fences.key = run_ids.key
)
RETURNING run_id

-- name: orphan_run
UPDATE {runs}
SET status = 'error', error = :error, fence = fence + 1, updated_at = :now,
    lease_until = :now + :lease_seconds
WHERE run_id = :run_id AND status = :was AND lease_until <= :now
RETURNING *

-- name: hold_unclosed
UPDATE {runs} SET lease_until = :now + :lease_seconds
WHERE run_id = :run_id AND NOT closed AND status NOT IN ('pending', 'running') AND lease_until <= :now
RETURNING *

-- name: delete_run
DELETE FROM {runs} WHERE run_id = :run_id AND closed RETURNING run_id

-- name: insert_thread
INSERT INTO {threads} (thread_id, user_id, status, hidden, metadata, config, interrupts, created_at, updated_at,
    state_updated_at)
SELECT :thread_id, :user_id, 'idle', :hidden, :metadata, :config, '{}', :now, :now, :now
WHERE true
ON CONFLICT (thread_id) DO NOTHING
RETURNING *

-- name: get_thread
SELECT * FROM {threads} WHERE thread_id = :thread_id

-- name: get_threads
SELECT * FROM {threads} WHERE thread_id IN (SELECT value FROM json_each(:ids)) AND NOT hidden

-- name: get_thread_head
SELECT thread_id, user_id, status, hidden, metadata FROM {threads} WHERE thread_id = :thread_id

-- name: lock_thread
SELECT metadata, config FROM {threads} WHERE thread_id = :thread_id

-- name: lock_thread_of_run
SELECT thread_id FROM {threads} WHERE thread_id = (SELECT thread_id FROM {runs} WHERE run_id = :run_id)

-- name: try_lock_thread_of_run
SELECT thread_id FROM {threads} WHERE thread_id = (SELECT thread_id FROM {runs} WHERE run_id = :run_id)

-- name: set_busy
UPDATE {threads}
SET resting = CASE WHEN status = 'busy' THEN resting ELSE status END, status = 'busy', metadata = :metadata,
    keep_seconds = COALESCE(:keep_seconds, keep_seconds), expires_at = NULL, updated_at = :now
WHERE thread_id = :thread_id
RETURNING thread_id

-- name: set_metadata
UPDATE {threads} SET metadata = :metadata WHERE thread_id = :thread_id

-- name: leave_thread
UPDATE {threads}
SET status = :status, resting = :resting, error = :error, "values" = COALESCE(:values, "values"),
    interrupts = :interrupts, updated_at = :now, state_updated_at = :now,
    expires_at = CASE WHEN :status <> 'busy' THEN :now + keep_seconds END
WHERE thread_id = :thread_id
RETURNING thread_id

-- name: rest_thread
UPDATE {threads}
SET status = COALESCE(resting, 'idle'), updated_at = :now, expires_at = :now + keep_seconds
WHERE thread_id = :thread_id
RETURNING thread_id

-- name: leave_unbegun
UPDATE {threads}
SET status = :status, resting = :status, error = :error, updated_at = :now, expires_at = :now + keep_seconds
WHERE thread_id = :thread_id
RETURNING thread_id

-- name: update_thread
UPDATE {threads} SET metadata = :metadata, config = :config, updated_at = :now
WHERE thread_id = :thread_id
RETURNING *

-- name: delete_thread
DELETE FROM {threads}
WHERE thread_id = :thread_id
    AND NOT EXISTS (SELECT 1 FROM {runs} AS run WHERE run.thread_id = :thread_id AND NOT run.closed)
RETURNING thread_id

-- name: find_expired
SELECT thread_id FROM {threads} WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit

-- name: search_threads
SELECT * FROM {threads}
WHERE NOT hidden AND (NOT :unowned OR user_id IS NULL) AND (:status IS NULL OR status = :status)
    AND (:ids IS NULL OR thread_id IN (SELECT value FROM json_each(:ids))) AND json_contains(metadata, :metadata)
ORDER BY
    CASE WHEN :order = 'created_at_asc' THEN created_at WHEN :order = 'updated_at_asc' THEN updated_at END,
    CASE WHEN :order = 'created_at_desc' THEN created_at WHEN :order = 'updated_at_desc' THEN updated_at END DESC,
    CASE WHEN :order = 'status_asc' THEN status END,
    CASE WHEN :order = 'status_desc' THEN status END DESC,
    CASE WHEN :order LIKE '%_asc' THEN thread_id END,
    thread_id DESC
LIMIT :limit OFFSET :offset

-- name: count_threads
SELECT count(*) AS found FROM {threads}
WHERE NOT hidden AND (NOT :unowned OR user_id IS NULL) AND (:status IS NULL OR status = :status)
    AND (:ids IS NULL OR thread_id IN (SELECT value FROM json_each(:ids))) AND json_contains(metadata, :metadata)
