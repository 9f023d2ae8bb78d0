-- name: create_threads
CREATE TABLE IF NOT EXISTS {threads} (
    thread_id text PRIMARY KEY,
    user_id text,
    status text NOT NULL,
    hidden boolean NOT NULL,
    metadata jsonb NOT NULL,
    config json NOT NULL,
    "values" json,
    interrupts json NOT NULL,
    error json,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    state_updated_at timestamptz NOT NULL
)

-- name: create_runs
CREATE TABLE IF NOT EXISTS {runs} (
    run_id text PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    thread_id text NOT NULL REFERENCES {threads} ON DELETE CASCADE,
    assistant_id text,
    status text NOT NULL,
    metadata json NOT NULL,
    kwargs json NOT NULL,
    multitask_strategy text NOT NULL,
    error json,
    owner text NOT NULL,
    fence bigint NOT NULL,
    lease_until timestamptz NOT NULL,
    cancel_action text,
    closed boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
)

-- name: create_runs_by_thread
CREATE INDEX IF NOT EXISTS {runs_by_thread} ON {runs} (thread_id, seq)

-- name: create_runs_by_lease
CREATE INDEX IF NOT EXISTS {runs_by_lease} ON {runs} (lease_until) WHERE NOT closed

-- name: upgrade_threads
DO $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = '{threads}'::regclass AND attname = 'expires_at' AND NOT attisdropped
    ) THEN
        ALTER TABLE {threads} ADD COLUMN resting text, ADD COLUMN keep_seconds double precision,
            ADD COLUMN expires_at timestamptz;
    END IF;
END $$

-- name: upgrade_runs
DO $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = '{runs}'::regclass AND attname = 'replaced' AND NOT attisdropped
    ) THEN
        ALTER TABLE {runs} ADD COLUMN IF NOT EXISTS is_rolled_back boolean NOT NULL DEFAULT false,
            ADD COLUMN IF NOT EXISTS due_at timestamptz, ADD COLUMN replaced json;
    END IF;
END $$

-- name: create_runs_unfinished
CREATE INDEX IF NOT EXISTS {runs_unfinished} ON {runs} (thread_id, seq) WHERE status IN ('pending', 'running')

-- name: create_threads_by_expiry
CREATE INDEX IF NOT EXISTS {threads_by_expiry} ON {threads} (expires_at) WHERE expires_at IS NOT NULL

-- name: get_run
SELECT * FROM {runs} WHERE run_id = %(run_id)s AND NOT is_rolled_back

-- name: get_owned
SELECT run.*, thread.user_id AS owning_user_id, thread.hidden AS in_hidden
FROM {runs} AS run JOIN {threads} AS thread ON thread.thread_id = run.thread_id
WHERE run_id = ANY(%(ids)s::text[]) AND NOT is_rolled_back

-- name: list_runs
SELECT * FROM {runs}
WHERE thread_id = %(thread_id)s AND (%(status)s::text IS NULL OR status = %(status)s)
    AND NOT is_rolled_back
ORDER BY seq DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: unfinished_of
SELECT run.run_id, run.thread_id, thread.hidden FROM {runs} AS run JOIN {threads} AS thread USING (thread_id)
WHERE NOT run.closed AND run.status IN ('pending', 'running') AND thread.user_id IS NOT DISTINCT FROM %(user_id)s::text
    AND (%(status)s::text IS NULL OR run.status = %(status)s)
ORDER BY run.seq DESC

-- name: insert_run
INSERT INTO {runs} (run_id, thread_id, assistant_id, status, metadata, kwargs, multitask_strategy, owner, fence,
    lease_until, closed, created_at, updated_at, due_at, replaced)
SELECT %(run_id)s, %(thread_id)s, %(assistant_id)s, %(status)s, %(metadata)s::json, %(kwargs)s::json,
    %(multitask_strategy)s, %(owner)s, 1, now + make_interval(secs => %(lease_seconds)s), false, now, now,
    now + make_interval(secs => %(after_seconds)s::double precision), %(replaced)s::json
FROM clock_timestamp() AS now
ON CONFLICT (run_id) DO NOTHING
RETURNING *

-- name: count_unfinished
SELECT count(*) AS unfinished,
    count(*) FILTER (WHERE status = 'running' OR due_at IS NULL OR due_at <= clock_timestamp()) AS ahead
FROM {runs}
WHERE thread_id = %(thread_id)s AND status IN ('pending', 'running')

-- name: unfinished_ids
SELECT run_id FROM {runs}
WHERE thread_id = %(thread_id)s AND status IN ('pending', 'running')
ORDER BY seq

-- name: first_in_line
SELECT run_id, owner FROM {runs} AS run
WHERE thread_id = %(thread_id)s AND status = 'pending' AND (due_at IS NULL OR due_at <= clock_timestamp())
    AND NOT EXISTS (
        SELECT 1 FROM {runs} AS other WHERE other.thread_id = run.thread_id AND other.status = 'running'
    )
ORDER BY seq LIMIT 1

-- name: begin_run
UPDATE {runs} AS run
SET status = 'running', updated_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE run_id = %(run_id)s AND owner = %(owner)s AND fence = %(fence)s AND status = 'pending'
    AND (due_at IS NULL OR due_at <= clock_timestamp())
    AND NOT EXISTS (
        SELECT 1 FROM {runs} AS other
        WHERE other.thread_id = run.thread_id AND (other.status = 'running' OR (
            other.status = 'pending' AND other.seq < run.seq AND (other.due_at IS NULL OR other.due_at <= clock_timestamp())
        ))
    )

-- name: status_under_lease
SELECT status FROM {runs} WHERE run_id = %(run_id)s AND owner = %(owner)s AND fence = %(fence)s

-- name: renew
UPDATE {runs} AS run
SET lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
FROM unnest(%(run_ids)s::text[], %(owners)s::text[], %(fences)s::bigint[]) AS held (run_id, owner, fence)
WHERE run.run_id = held.run_id AND run.owner = held.owner AND run.fence = held.fence
    AND NOT run.closed AND run.lease_until > clock_timestamp()
RETURNING run.run_id, run.cancel_action

-- name: finish_run
UPDATE {runs} SET status = %(status)s, error = %(error)s::json, updated_at = clock_timestamp()
WHERE run_id = %(run_id)s AND owner = %(owner)s AND fence = %(fence)s AND status = %(was)s
    AND cancel_action IS DISTINCT FROM 'rollback'
RETURNING thread_id

-- name: roll_back_run
UPDATE {runs} SET status = 'interrupted', is_rolled_back = true, updated_at = clock_timestamp()
WHERE run_id = %(run_id)s AND owner = %(owner)s AND fence = %(fence)s AND status = 'running'
RETURNING thread_id, replaced

-- name: cancel_pending
UPDATE {runs}
SET status = 'interrupted', is_rolled_back = (%(action)s::text = 'rollback'), updated_at = clock_timestamp()
WHERE run_id = %(run_id)s AND status = 'pending'
RETURNING thread_id, owner, replaced

-- name: cancel_running
UPDATE {runs}
SET cancel_action = CASE WHEN cancel_action = 'rollback' THEN cancel_action ELSE %(action)s::text END
WHERE run_id = %(run_id)s AND status = 'running'
RETURNING thread_id, owner, cancel_action

-- name: close_run
UPDATE {runs} SET closed = true
WHERE run_id = %(run_id)s AND status NOT IN ('pending', 'running')
RETURNING run_id

-- name: forget_rolled_back
DELETE FROM {runs} WHERE run_id = %(run_id)s AND is_rolled_back AND closed

-- name: find_lapsed
SELECT run_id FROM {runs}
WHERE NOT closed AND lease_until <= clock_timestamp()
    AND (lease_until <= clock_timestamp() - make_interval(secs => %(adoption_seconds)s) OR NOT ((status = 'pending' AND assistant_id IS NOT NULL)
    OR (status = 'running' AND COALESCE(cancel_action = 'rollback', false))))
ORDER BY lease_until LIMIT %(limit)s

-- name: find_adoptable
SELECT * FROM {runs}
WHERE NOT closed AND lease_until <= clock_timestamp()
    AND ((status = 'pending' AND assistant_id IS NOT NULL) OR (status = 'running' AND cancel_action = 'rollback'))
ORDER BY seq LIMIT %(limit)s

-- name: adopt_run
UPDATE {runs} SET owner = %(owner)s, fence = fence + 1, lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE run_id = %(run_id)s AND NOT closed AND lease_until <= clock_timestamp()
    AND ((status = 'pending' AND assistant_id IS NOT NULL) OR (status = 'running' AND cancel_action = 'rollback'))
RETURNING *

-- name: release_runs
UPDATE {runs} AS run SET lease_until = clock_timestamp(), fence = run.fence + 1
FROM unnest(%(run_ids)s::text[], %(owners)s::text[], %(fences)s::bigint[]) AS held (run_id, owner, fence)
WHERE run.run_id = held.run_id AND run.owner = held.owner AND run.fence = held.fence
    AND run.status = 'pending' AND run.assistant_id IS NOT NULL
RETURNING run.run_id

-- name: orphan_run
UPDATE {runs}
SET status = 'error', error = %(error)s::json, fence = fence + 1, updated_at = clock_timestamp(),
    lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE run_id = %(run_id)s AND status = %(was)s AND lease_until <= clock_timestamp()
RETURNING *

-- name: hold_unclosed
UPDATE {runs} SET lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE run_id = %(run_id)s AND NOT closed AND status NOT IN ('pending', 'running') AND lease_until <= clock_timestamp()
RETURNING *

-- name: delete_run
DELETE FROM {runs} WHERE run_id = %(run_id)s AND closed RETURNING run_id

-- name: insert_thread
INSERT INTO {threads} (thread_id, user_id, status, hidden, metadata, config, interrupts, created_at, updated_at,
    state_updated_at)
SELECT %(thread_id)s, %(user_id)s, 'idle', %(hidden)s, %(metadata)s::jsonb, %(config)s::json, '{}', now, now, now
FROM clock_timestamp() AS now
ON CONFLICT (thread_id) DO NOTHING
RETURNING *

-- name: get_thread
SELECT * FROM {threads} WHERE thread_id = %(thread_id)s

-- name: get_threads
SELECT * FROM {threads} WHERE thread_id = ANY(%(ids)s::text[]) AND NOT hidden

-- name: get_thread_head
SELECT thread_id, user_id, status, hidden, metadata FROM {threads} WHERE thread_id = %(thread_id)s

-- name: lock_thread
SELECT metadata, config FROM {threads} WHERE thread_id = %(thread_id)s FOR UPDATE

-- name: lock_thread_of_run
SELECT thread_id FROM {threads} WHERE thread_id = (SELECT thread_id FROM {runs} WHERE run_id = %(run_id)s) FOR UPDATE

-- name: try_lock_thread_of_run
SELECT thread_id FROM {threads} WHERE thread_id = (SELECT thread_id FROM {runs} WHERE run_id = %(run_id)s)
FOR UPDATE SKIP LOCKED

-- name: set_busy
UPDATE {threads}
SET resting = CASE WHEN status = 'busy' THEN resting ELSE status END, status = 'busy', metadata = %(metadata)s::jsonb,
    keep_seconds = COALESCE(%(keep_seconds)s::double precision, keep_seconds), expires_at = NULL,
    updated_at = clock_timestamp()
WHERE thread_id = %(thread_id)s
RETURNING thread_id

-- name: set_metadata
UPDATE {threads} SET metadata = %(metadata)s::jsonb WHERE thread_id = %(thread_id)s

-- name: leave_thread
UPDATE {threads}
SET status = %(status)s::text, resting = %(resting)s, error = %(error)s::json, "values" = COALESCE(%(values)s::json, "values"),
    interrupts = %(interrupts)s::json, updated_at = clock_timestamp(), state_updated_at = clock_timestamp(),
    expires_at = CASE WHEN %(status)s::text <> 'busy' THEN clock_timestamp() + make_interval(secs => keep_seconds) END
WHERE thread_id = %(thread_id)s
RETURNING thread_id

-- name: rest_thread
UPDATE {threads}
SET status = COALESCE(resting, 'idle'), updated_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => keep_seconds)
WHERE thread_id = %(thread_id)s
RETURNING thread_id

-- name: leave_unbegun
UPDATE {threads}
SET status = %(status)s::text, resting = %(status)s::text, error = %(error)s::json, updated_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => keep_seconds)
WHERE thread_id = %(thread_id)s
RETURNING thread_id

-- name: update_thread
UPDATE {threads} SET metadata = %(metadata)s::jsonb, config = %(config)s::json, updated_at = clock_timestamp()
WHERE thread_id = %(thread_id)s
RETURNING *

-- name: delete_thread
DELETE FROM {threads}
WHERE thread_id = %(thread_id)s
    AND NOT EXISTS (SELECT 1 FROM {runs} AS run WHERE run.thread_id = %(thread_id)s AND NOT run.closed)
RETURNING thread_id

-- name: find_expired
SELECT thread_id FROM {threads} WHERE expires_at <= clock_timestamp() ORDER BY expires_at LIMIT %(limit)s

-- name: search_threads
SELECT * FROM {threads}
WHERE NOT hidden AND (NOT %(unowned)s OR user_id IS NULL) AND (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(ids)s::text[] IS NULL OR thread_id = ANY(%(ids)s::text[])) AND metadata @> %(metadata)s::jsonb
ORDER BY
    CASE WHEN %(order)s = 'created_at_asc' THEN created_at WHEN %(order)s = 'updated_at_asc' THEN updated_at END,
    CASE WHEN %(order)s = 'created_at_desc' THEN created_at WHEN %(order)s = 'updated_at_desc' THEN updated_at END DESC,
    CASE WHEN %(order)s = 'status_asc' THEN status COLLATE "C" END,
    CASE WHEN %(order)s = 'status_desc' THEN status COLLATE "C" END DESC,
    CASE WHEN %(order)s LIKE '%%_asc' THEN thread_id COLLATE "C" END,
    thread_id COLLATE "C" DESC
LIMIT %(limit)s OFFSET %(offset)s

-- name: count_threads
SELECT count(*) AS found FROM {threads}
WHERE NOT hidden AND (NOT %(unowned)s OR user_id IS NULL) AND (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(ids)s::text[] IS NULL OR thread_id = ANY(%(ids)s::text[])) AND metadata @> %(metadata)s::jsonb
