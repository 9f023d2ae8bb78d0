-- name: about
CREATE TABLE IF NOT EXISTS store_about (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID

-- name: items
CREATE TABLE IF NOT EXISTS store_items (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL, -- labels joined by dots, which no label holds
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL, -- this and all other times in microseconds
    updated_at INTEGER NOT NULL,
    ttl INTEGER,
    expires_at INTEGER,
    document TEXT NOT NULL, -- last: what does not need it does not read its pages
    UNIQUE (namespace, key)
)

-- name: items_by_update
CREATE INDEX IF NOT EXISTS store_items_by_update ON store_items (namespace, updated_at DESC, key)

-- name: items_by_expiry
CREATE INDEX IF NOT EXISTS store_items_by_expiry ON store_items (expires_at) WHERE expires_at IS NOT NULL

-- name: vectors
CREATE TABLE IF NOT EXISTS store_item_vectors (
    item INTEGER NOT NULL REFERENCES store_items (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    vector BLOB NOT NULL, -- 32-bit floats
    PRIMARY KEY (item, path)
)
