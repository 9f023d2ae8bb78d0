-- name: about
CREATE TABLE IF NOT EXISTS {about} (name text PRIMARY KEY, value text NOT NULL)

-- name: versions
CREATE SEQUENCE IF NOT EXISTS {versions}

-- name: items
CREATE TABLE IF NOT EXISTS {items} (
    namespace text COLLATE "C" NOT NULL, -- labels joined by dots, which no label holds
    key text COLLATE "C" NOT NULL,
    value jsonb NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ttl interval,
    expires_at timestamptz,
    PRIMARY KEY (namespace, key)
)

-- name: items_by_update
CREATE INDEX IF NOT EXISTS {items_by_update} ON {items} (namespace, updated_at DESC, key)

-- name: items_by_expiry
CREATE INDEX IF NOT EXISTS {items_by_expiry} ON {items} (expires_at) WHERE expires_at IS NOT NULL
