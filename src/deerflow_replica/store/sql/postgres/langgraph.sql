-- name: columns
SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('store') AND attnum > 0 AND NOT attisdropped

-- name: page
SELECT prefix, key, value::text AS document,
       coalesce(created_at, updated_at, now()) AS created_at, coalesce(updated_at, created_at, now()) AS updated_at, {expiry}
FROM store
WHERE %(is_first)s OR (prefix, key) > (%(prefix)s, %(key)s)
ORDER BY prefix, key
LIMIT %(limit)s
