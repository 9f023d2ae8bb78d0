-- name: columns
SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('store') AND attnum > 0 AND NOT attisdropped

-- name: page
-- As many as are wanted; none follows those that have 4 MiB, as the table holds them.
SELECT prefix, key, value::text AS document,
       coalesce(created_at, updated_at, now()) AS created_at, coalesce(updated_at, created_at, now()) AS updated_at, {expiry}
FROM (
    SELECT *, sum(pg_column_size(value)) OVER (ORDER BY prefix, key) - pg_column_size(value) AS size_before
    FROM (
        SELECT *
        FROM store
        WHERE %(is_first)s OR (prefix, key) > (%(prefix)s, %(key)s)
        ORDER BY prefix, key
        LIMIT %(limit)s
    ) AS wanted
) AS page
WHERE size_before < 4194304
ORDER BY prefix, key
