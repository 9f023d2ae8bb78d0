-- name: create_table
CREATE TABLE IF NOT EXISTS {table} (
    tenant text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    assistant_id text,
    display_name text,
    status text NOT NULL,
    metadata text NOT NULL, -- not jsonb: that would reorder keys and rewrite numbers
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    version bigint NOT NULL,
    ttl bigint,
    expires_at bigint,
    deleted_at bigint,
    change text NOT NULL,
    PRIMARY KEY (tenant, thread_id)
)

-- name: create_index_updated
CREATE INDEX IF NOT EXISTS {by_updated} ON {table} (tenant, user_id, updated_at, thread_id) WHERE deleted_at IS NULL

-- name: create_index_created
CREATE INDEX IF NOT EXISTS {by_created} ON {table} (tenant, user_id, created_at, thread_id) WHERE deleted_at IS NULL

-- name: create_index_expires
CREATE INDEX IF NOT EXISTS {by_expires} ON {table} (tenant, expires_at) WHERE deleted_at IS NULL AND expires_at IS NOT NULL

-- name: create_index_deleted
CREATE INDEX IF NOT EXISTS {by_deleted} ON {table} (tenant, deleted_at) WHERE deleted_at IS NOT NULL

-- name: read
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       thread_id, user_id, assistant_id, display_name, status, metadata,
       created_at, updated_at, version, ttl, expires_at, deleted_at, change
FROM {table}
WHERE tenant = %(tenant)s AND thread_id = ANY(%(keys)s::text[])

-- name: read_one
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       thread_id, user_id, assistant_id, display_name, status, metadata,
       created_at, updated_at, version, ttl, expires_at, deleted_at, change
FROM {table}
WHERE tenant = %(tenant)s AND thread_id = %(key)s

-- name: owners
-- Whether it lives is not a condition: the planner would look at every index that is for such rows.
SELECT thread_id,
       CASE WHEN deleted_at IS NULL
             AND (expires_at IS NULL OR status = 'busy'
                  OR expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) THEN user_id END
FROM {table}
WHERE tenant = %(tenant)s AND thread_id = ANY(%(keys)s::text[])

-- name: owner
SELECT thread_id,
       CASE WHEN deleted_at IS NULL
             AND (expires_at IS NULL OR status = 'busy'
                  OR expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) THEN user_id END
FROM {table}
WHERE tenant = %(tenant)s AND thread_id = %(key)s

-- name: read_locked
WITH locked AS MATERIALIZED (
    SELECT thread_id, user_id, assistant_id, display_name, status, metadata,
           created_at, updated_at, version, ttl, expires_at, deleted_at, change
    FROM {table}
    WHERE tenant = %(tenant)s AND thread_id = %(key)s
    FOR UPDATE
)
-- The clock is read after the lock was waited for.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, locked.*
FROM (SELECT 1) AS always LEFT JOIN locked ON true

-- name: claim
WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now)
INSERT INTO {table} (tenant, thread_id, user_id, assistant_id, display_name, status, metadata,
                     created_at, updated_at, version, ttl, expires_at, change)
SELECT %(tenant)s, key, %(user_id)s, %(assistant_id)s::text, %(display_name)s::text, %(status)s, %(metadata)s,
       now, now, 1, %(ttl)s::bigint,
       CASE WHEN %(ttl)s::bigint IS NOT NULL THEN least(now + %(ttl)s::bigint, %(latest)s::bigint) END, %(change)s
FROM clock, unnest(%(keys)s::text[]) AS key
ON CONFLICT DO NOTHING
RETURNING thread_id, created_at

-- name: claim_many
-- What others insert meanwhile is in neither answer.
WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
found AS MATERIALIZED (
    SELECT thread_id, user_id, assistant_id, display_name, status, metadata,
           created_at, updated_at, version, ttl, expires_at, deleted_at, change
    FROM {table}
    WHERE tenant = %(tenant)s AND thread_id = ANY(%(keys)s::text[])
),
made AS (
    INSERT INTO {table} (tenant, thread_id, user_id, assistant_id, display_name, status, metadata,
                         created_at, updated_at, version, ttl, expires_at, change)
    SELECT %(tenant)s, key, %(user_id)s, %(assistant_id)s::text, %(display_name)s::text, %(status)s, %(metadata)s,
           now, now, 1, %(ttl)s::bigint,
           CASE WHEN %(ttl)s::bigint IS NOT NULL THEN least(now + %(ttl)s::bigint, %(latest)s::bigint) END, %(change)s
    FROM clock, unnest(%(keys)s::text[]) AS key
    WHERE key COLLATE "C" NOT IN (SELECT thread_id FROM found)
    ORDER BY key COLLATE "C" -- two inserts of many rows wait for each other in one direction only
    ON CONFLICT DO NOTHING
    RETURNING thread_id
)
SELECT now, true, thread_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM clock, made
UNION ALL
SELECT now, false, found.* FROM clock, found

-- name: insert
INSERT INTO {table} (tenant, thread_id, user_id, assistant_id, display_name, status, metadata,
                     created_at, updated_at, version, ttl, expires_at, deleted_at, change)
VALUES (%(tenant)s, %(thread_id)s, %(user_id)s, %(assistant_id)s, %(display_name)s, %(status)s, %(metadata)s,
        %(created_at)s, %(updated_at)s, %(version)s, %(ttl)s, %(expires_at)s, %(deleted_at)s, %(change)s)
ON CONFLICT DO NOTHING

-- name: replace
UPDATE {table}
SET user_id = %(user_id)s, assistant_id = %(assistant_id)s, display_name = %(display_name)s, status = %(status)s,
    metadata = %(metadata)s, created_at = %(created_at)s, updated_at = %(updated_at)s, version = %(version)s,
    ttl = %(ttl)s, expires_at = %(expires_at)s, deleted_at = %(deleted_at)s, change = %(change)s
WHERE tenant = %(tenant)s AND thread_id = %(thread_id)s

-- name: remove
DELETE FROM {table} WHERE tenant = %(tenant)s AND thread_id = %(thread_id)s AND change = %(change)s

-- name: page
SELECT thread_id, user_id, assistant_id, display_name, status, metadata,
       created_at, updated_at, version, ttl, expires_at, deleted_at, change
FROM {table}
WHERE tenant = %(tenant)s AND user_id = %(user_id)s AND deleted_at IS NULL
  AND ({sort}, thread_id) {beyond} (%(after_value)s::bigint, %(after_key)s::text)
  AND (expires_at IS NULL OR status = 'busy'
       OR expires_at > (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))
  AND (%(status)s::text IS NULL OR status = %(status)s::text)
  AND (%(ids)s::text[] IS NULL OR thread_id = ANY(%(ids)s::text[]))
  AND (%(metadata)s::text = '{}' OR NOT EXISTS (
      SELECT FROM jsonb_each(%(metadata)s::jsonb) AS wanted
      WHERE metadata::jsonb -> wanted.key IS DISTINCT FROM wanted.value
  ))
ORDER BY {sort} {direction}, thread_id {direction}
LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*)
FROM {table}
WHERE tenant = %(tenant)s AND user_id = %(user_id)s AND deleted_at IS NULL
  AND (expires_at IS NULL OR status = 'busy'
       OR expires_at > (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))
  AND (%(status)s::text IS NULL OR status = %(status)s::text)
  AND (%(metadata)s::text = '{}' OR NOT EXISTS (
      SELECT FROM jsonb_each(%(metadata)s::jsonb) AS wanted
      WHERE metadata::jsonb -> wanted.key IS DISTINCT FROM wanted.value
  ))

-- name: bury_expired
WITH expired AS MATERIALIZED (
    SELECT tenant, thread_id FROM {table}
    WHERE tenant = %(tenant)s AND deleted_at IS NULL AND status <> 'busy'
      AND expires_at <= (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    ORDER BY expires_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE {table} AS thread
SET deleted_at = thread.expires_at, assistant_id = NULL, display_name = NULL, status = 'idle', metadata = '{}',
    ttl = NULL, expires_at = NULL, change = %(change)s
FROM expired
WHERE thread.tenant = expired.tenant AND thread.thread_id = expired.thread_id

-- name: drop_tombstones
WITH old AS MATERIALIZED (
    SELECT tenant, thread_id FROM {table}
    WHERE tenant = %(tenant)s
      AND deleted_at <= (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) - %(tombstone)s::bigint
    ORDER BY deleted_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM {table} AS thread USING old WHERE thread.tenant = old.tenant AND thread.thread_id = old.thread_id
