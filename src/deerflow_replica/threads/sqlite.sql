-- name: create_table
CREATE TABLE IF NOT EXISTS {table} (
    tenant TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    assistant_id TEXT,
    display_name TEXT,
    status TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    ttl INTEGER,
    expires_at INTEGER,
    deleted_at INTEGER,
    change TEXT NOT NULL,
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
SELECT thread_id, user_id, assistant_id, display_name, status, metadata,
       created_at, updated_at, version, ttl, expires_at, deleted_at, change
FROM {table}
WHERE tenant = :tenant AND thread_id IN (SELECT value FROM json_each(:keys))

-- name: owners
SELECT thread_id, user_id
FROM {table}
WHERE tenant = :tenant AND thread_id IN (SELECT value FROM json_each(:keys))
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > :now OR status = 'busy')

-- name: insert
INSERT INTO {table} (tenant, thread_id, user_id, assistant_id, display_name, status, metadata,
                     created_at, updated_at, version, ttl, expires_at, deleted_at, change)
SELECT :tenant, value, :user_id, :assistant_id, :display_name, :status, :metadata,
       :created_at, :updated_at, :version, :ttl, :expires_at, :deleted_at, :change
FROM json_each(:keys)
WHERE true -- without it the parser takes ON CONFLICT for a join
ON CONFLICT DO NOTHING
RETURNING thread_id

-- name: replace
UPDATE {table}
SET user_id = :user_id, assistant_id = :assistant_id, display_name = :display_name, status = :status,
    metadata = :metadata, created_at = :created_at, updated_at = :updated_at, version = :version,
    ttl = :ttl, expires_at = :expires_at, deleted_at = :deleted_at, change = :change
WHERE tenant = :tenant AND thread_id = :thread_id

-- name: remove
DELETE FROM {table} WHERE tenant = :tenant AND thread_id = :thread_id AND change = :change

-- name: page
SELECT thread_id, user_id, assistant_id, display_name, status, metadata,
       created_at, updated_at, version, ttl, expires_at, deleted_at, change
FROM {table}
WHERE tenant = :tenant AND user_id = :user_id AND deleted_at IS NULL
  AND ({sort}, thread_id) {beyond} (:after_value, :after_key)
  AND (expires_at IS NULL OR expires_at > :now OR status = 'busy')
  AND (:status IS NULL OR status = :status)
  AND (:ids IS NULL OR thread_id IN (SELECT value FROM json_each(:ids)))
  AND (:metadata = '{}' OR metadata_matches(metadata, :metadata))
ORDER BY {sort} {direction}, thread_id {direction}
LIMIT :limit OFFSET :offset

-- name: count
SELECT count(*)
FROM {table}
WHERE tenant = :tenant AND user_id = :user_id AND deleted_at IS NULL
  AND (expires_at IS NULL OR expires_at > :now OR status = 'busy')
  AND (:status IS NULL OR status = :status)
  AND (:metadata = '{}' OR metadata_matches(metadata, :metadata))

-- name: bury_expired
UPDATE {table}
SET deleted_at = expires_at, assistant_id = NULL, display_name = NULL, status = 'idle', metadata = '{}',
    ttl = NULL, expires_at = NULL, change = :change
WHERE tenant = :tenant AND thread_id IN (
    SELECT thread_id FROM {table}
    WHERE tenant = :tenant AND deleted_at IS NULL AND expires_at <= :now AND status <> 'busy'
    ORDER BY expires_at
    LIMIT :limit
)

-- name: drop_tombstones
DELETE FROM {table}
WHERE tenant = :tenant AND thread_id IN (
    SELECT thread_id FROM {table}
    WHERE tenant = :tenant AND deleted_at <= :now - :tombstone
    ORDER BY deleted_at
    LIMIT :limit
)
