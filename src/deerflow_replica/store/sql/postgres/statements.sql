-- name: about
SELECT name, value FROM {about}

-- name: note
INSERT INTO {about} (name, value) VALUES (%(name)s, %(value)s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value

-- name: live
(NOT %(live)s OR expires_at IS NULL OR expires_at > statement_timestamp())

-- name: columns
namespace, key, value::text, version, (extract(epoch FROM created_at) * 1000000)::bigint, (extract(epoch FROM updated_at) * 1000000)::bigint, ttl IS NOT NULL

-- name: kept
namespace, key, value, version, created_at, updated_at, ttl

-- name: get_one
SELECT {columns}
FROM {items}
WHERE namespace = %(namespace)s AND key = %(key)s AND {live}

-- name: get
SELECT wanted.place, {columns}
FROM unnest(%(namespaces)b::text[], %(keys)b::text[]) WITH ORDINALITY AS wanted (in_namespace, by_key, place)
JOIN {items} ON namespace = in_namespace AND key = by_key
WHERE {live}

-- name: below
namespace > %(prefix)s::text || '.' AND namespace < %(prefix)s::text || '/' /* "/" is what follows "." */

-- name: page_of_all
SELECT {columns}
FROM {items}
WHERE {live} AND {filter}
ORDER BY {items}.updated_at DESC, string_to_array(namespace, '.') COLLATE "C", key
LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint

-- name: page
SELECT {columns}
FROM (
    -- The namespace itself in the order of its index, then whatever is below it.
    (SELECT {kept} FROM {items}
     WHERE namespace = %(prefix)s AND {live} AND {filter}
     ORDER BY updated_near DESC, updated_at DESC, key
     LIMIT %(end)s::bigint)
    UNION ALL
    SELECT {kept} FROM {items} WHERE {below} AND {live} AND {filter}
) AS newest
ORDER BY newest.updated_at DESC, CASE WHEN namespace <> %(prefix)s THEN string_to_array(namespace, '.') END COLLATE "C" NULLS FIRST, key
LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint

-- name: pages
SELECT wanted.place, {columns}
FROM unnest(%(prefixes)b::text[], %(offsets)b::text[], %(ends)b::text[]) WITH ORDINALITY
     AS wanted (prefix, skipped, until, place)
CROSS JOIN LATERAL (
    SELECT *
    FROM (
        (SELECT {kept} FROM {items}
         WHERE namespace = wanted.prefix AND {live}
         ORDER BY updated_near DESC, updated_at DESC, key
         LIMIT wanted.until::bigint)
        UNION ALL
        SELECT {kept} FROM {items}
        WHERE namespace > wanted.prefix || '.' AND namespace < wanted.prefix || '/' AND {live}
    ) AS newest
    ORDER BY newest.updated_at DESC, -- to split each namespace would cost as much as the rest of the sort
             CASE WHEN namespace <> wanted.prefix THEN string_to_array(namespace, '.') END COLLATE "C" NULLS FIRST, key
    LIMIT wanted.until::bigint - wanted.skipped::bigint OFFSET wanted.skipped::bigint
) AS page -- one after the other: the rows of each stay in its order

-- name: count
SELECT count(*) FROM {items} WHERE {within} AND {live} AND {filter}

-- name: namespaces
WITH RECURSIVE walk AS (
    SELECT NULL::text COLLATE "C" AS cut, %(prefix)s::text COLLATE "C" AS start,
           0::bigint AS found, ''::text COLLATE "C" AS until
    UNION ALL
    SELECT CASE WHEN is_wanted THEN seen.cut END,
           -- Whatever else is below the cut would be cut to the same.
           CASE WHEN is_wanted AND seen.cut <> next.namespace THEN seen.cut || '/' ELSE next.namespace || chr(1) END,
           found + is_wanted::int,
           -- "a-b" comes before "a.b", but ("a", "b") before ("a-b",): only beyond "a/" the order is certain.
           CASE WHEN is_wanted AND found < %(enough)s::bigint
                THEN greatest(until, substring(seen.cut FROM '^([^\u0001-\u002d]*)[\u0001-\u002d]') || '/') ELSE until END
    FROM walk
    CROSS JOIN LATERAL (
        SELECT items.namespace FROM {items} AS items
        WHERE items.namespace >= walk.start
        ORDER BY items.namespace
        LIMIT 1
    ) AS next
    CROSS JOIN LATERAL (SELECT string_to_array(next.namespace, '.') COLLATE "C" AS labels) AS split
    CROSS JOIN LATERAL (
        SELECT array_to_string(labels[:%(max_depth)s::int], '.') AS cut,
               ({wanted}) AND (NOT %(live)s OR EXISTS (
                   SELECT FROM {items} AS items
                   WHERE items.namespace = next.namespace
                     AND (items.expires_at IS NULL OR items.expires_at > statement_timestamp())
               )) AS is_wanted
    ) AS seen
    WHERE starts_with(next.namespace, %(prefix)s::text) AND (found < %(enough)s::bigint OR next.namespace < until)
)
SELECT cut
FROM (SELECT DISTINCT cut FROM walk WHERE cut IS NOT NULL) AS page
ORDER BY string_to_array(cut, '.') COLLATE "C"
LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint

-- name: put
INSERT INTO {items} AS item (namespace, key, value, version, created_at, updated_at, ttl, expires_at)
SELECT namespace, key, value::jsonb, version, now, now,
       nullif(ttl, '')::bigint * interval '1 microsecond', now + nullif(ttl, '')::bigint * interval '1 microsecond'
FROM (SELECT clock_timestamp() AS now, nextval('{versions}'::regclass) AS version) AS clock,
     unnest(%(namespaces)b::text[], %(keys)b::text[], %(documents)b::text[], %(ttls)b::text[])
     WITH ORDINALITY AS given (namespace, key, value, ttl, place)
ORDER BY place
ON CONFLICT (namespace, key) DO UPDATE
SET value = EXCLUDED.value,
    -- Once the row is locked: what was taken for the row to insert may be older than what a faster writer has stored.
    version = CASE WHEN EXCLUDED.version > item.version THEN EXCLUDED.version
                   ELSE nextval('{versions}'::regclass) END,
    created_at = CASE WHEN %(live)s AND item.expires_at <= clock_timestamp() THEN EXCLUDED.created_at
                      ELSE item.created_at END,
    updated_at = greatest(clock_timestamp(), item.created_at),
    ttl = EXCLUDED.ttl,
    expires_at = clock_timestamp() + EXCLUDED.ttl

-- name: put_one
INSERT INTO {items} AS item (namespace, key, value, version, created_at, updated_at, ttl, expires_at)
SELECT %(namespace)s::text, %(key)s::text, %(document)s::jsonb, nextval('{versions}'::regclass), now, now,
       %(ttl)s::bigint * interval '1 microsecond', now + %(ttl)s::bigint * interval '1 microsecond'
FROM (SELECT clock_timestamp() AS now) AS clock
ON CONFLICT (namespace, key) DO UPDATE
SET value = EXCLUDED.value,
    version = CASE WHEN EXCLUDED.version > item.version THEN EXCLUDED.version
                   ELSE nextval('{versions}'::regclass) END,
    created_at = CASE WHEN %(live)s AND item.expires_at <= clock_timestamp() THEN EXCLUDED.created_at
                      ELSE item.created_at END,
    updated_at = greatest(clock_timestamp(), item.created_at),
    ttl = EXCLUDED.ttl,
    expires_at = clock_timestamp() + EXCLUDED.ttl

-- name: delete
DELETE FROM {items} AS item
USING (
    SELECT namespace, key
    FROM {items}
    JOIN unnest(%(namespaces)b::text[], %(keys)b::text[]) AS wanted (in_namespace, by_key)
      ON namespace = in_namespace AND key = by_key
    ORDER BY namespace, key
    FOR UPDATE
) AS locked
WHERE item.namespace = locked.namespace AND item.key = locked.key

-- name: delete_one
DELETE FROM {items} WHERE namespace = %(namespace)s AND key = %(key)s

-- name: create
INSERT INTO {items} AS item (namespace, key, value, version, created_at, updated_at, ttl, expires_at)
SELECT %(namespace)s::text, %(key)s::text, %(document)s::jsonb, nextval('{versions}'::regclass), now, now,
       %(ttl)s::bigint * interval '1 microsecond', now + %(ttl)s::bigint * interval '1 microsecond'
FROM (SELECT clock_timestamp() AS now) AS clock
ON CONFLICT (namespace, key) DO UPDATE
SET value = EXCLUDED.value,
    version = nextval('{versions}'::regclass),
    created_at = EXCLUDED.created_at,
    updated_at = EXCLUDED.updated_at,
    ttl = EXCLUDED.ttl,
    expires_at = EXCLUDED.expires_at
WHERE %(live)s AND item.expires_at <= clock_timestamp()
RETURNING version, created_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC'

-- name: replace
UPDATE {items} AS item
SET value = %(document)s::jsonb,
    version = nextval('{versions}'::regclass),
    updated_at = greatest(clock_timestamp(), item.created_at),
    ttl = CASE WHEN %(keeps_ttl)s THEN item.ttl ELSE %(ttl)s::bigint * interval '1 microsecond' END,
    expires_at = clock_timestamp()
        + CASE WHEN %(keeps_ttl)s THEN item.ttl ELSE %(ttl)s::bigint * interval '1 microsecond' END
WHERE namespace = %(namespace)s AND key = %(key)s AND version = %(expected)s::bigint
  AND (NOT %(live)s OR expires_at IS NULL OR expires_at > clock_timestamp())
RETURNING version, created_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC'

-- name: remove
DELETE FROM {items}
WHERE namespace = %(namespace)s AND key = %(key)s AND version = %(expected)s::bigint
  AND (NOT %(live)s OR expires_at IS NULL OR expires_at > clock_timestamp())
RETURNING 0, NULL, NULL

-- name: current
SELECT version FROM {items} WHERE namespace = %(namespace)s AND key = %(key)s AND {live}

-- name: touch
UPDATE {items} AS item
SET expires_at = statement_timestamp() + item.ttl
FROM (
    -- What somebody else has locked is being written, deleted, or touched just now.
    SELECT namespace, key
    FROM {items} AS item
    JOIN unnest(%(namespaces)b::text[], %(keys)b::text[]) AS wanted (in_namespace, by_key)
      ON namespace = in_namespace AND key = by_key
    WHERE ttl IS NOT NULL AND expires_at > statement_timestamp()
    ORDER BY namespace, key
    FOR NO KEY UPDATE OF item SKIP LOCKED
) AS used
WHERE item.namespace = used.namespace AND item.key = used.key

-- name: delete_namespace
WITH locked AS MATERIALIZED (
    SELECT namespace, key, {live} AS counts
    FROM {items}
    WHERE namespace = %(prefix)s OR {below}
    ORDER BY namespace, key
    FOR UPDATE
),
gone AS (
    DELETE FROM {items} AS item USING locked
    WHERE item.namespace = locked.namespace AND item.key = locked.key
    RETURNING counts
)
SELECT count(*) FROM gone WHERE counts

-- name: sweep
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtextextended(%(lock)s, 0)) AS is_ours),
expired AS MATERIALIZED (
    SELECT namespace, key
    FROM {items}
    WHERE expires_at <= statement_timestamp() AND (SELECT is_ours FROM turn)
    ORDER BY expires_at
    LIMIT %(limit)s::bigint
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM {items} AS item USING expired
    WHERE item.namespace = expired.namespace AND item.key = expired.key
    RETURNING 1
)
SELECT is_ours, (SELECT count(*) FROM gone) FROM turn

-- name: restore
INSERT INTO {items} AS item (namespace, key, value, version, created_at, updated_at, ttl, expires_at)
SELECT namespace, key, value::jsonb, nextval('{versions}'::regclass), created_at::timestamptz, updated_at::timestamptz,
       nullif(ttl, '')::bigint * interval '1 microsecond', nullif(expires_at, '')::timestamptz
FROM unnest(%(namespaces)b::text[], %(keys)b::text[], %(documents)b::text[], %(ttls)b::text[],
            %(created)b::text[], %(updated)b::text[], %(expires)b::text[])
     WITH ORDINALITY AS given (namespace, key, value, ttl, created_at, updated_at, expires_at, place)
ORDER BY place
ON CONFLICT (namespace, key) DO UPDATE
SET value = EXCLUDED.value,
    version = nextval('{versions}'::regclass),
    created_at = EXCLUDED.created_at,
    updated_at = EXCLUDED.updated_at,
    ttl = EXCLUDED.ttl,
    expires_at = EXCLUDED.expires_at
WHERE %(on_conflict)s = 'replace' OR (%(on_conflict)s = 'newer' AND EXCLUDED.updated_at > item.updated_at)
RETURNING namespace, key

-- name: within
(namespace = %(prefix)s OR ({below}))

-- name: forget_vectors
DELETE FROM {vectors}
USING unnest(%(namespaces)b::text[], %(keys)b::text[]) AS wanted (in_namespace, by_key)
WHERE namespace = in_namespace AND key = by_key

-- name: add_vectors
INSERT INTO {vectors} (namespace, key, path, embedding)
SELECT namespace, key, path, embedding::{extension}.{vector_type}
FROM unnest(%(namespaces)b::text[], %(keys)b::text[], %(paths)b::text[], %(embeddings)b::text[])
     AS given (namespace, key, path, embedding)

-- name: forget_texts
DELETE FROM {texts}
USING unnest(%(namespaces)b::text[], %(keys)b::text[]) AS wanted (in_namespace, by_key)
WHERE namespace = in_namespace AND key = by_key

-- name: add_texts
INSERT INTO {texts} (namespace, key, words)
SELECT namespace, key, to_tsvector(%(language)s::regconfig, words)
FROM unnest(%(namespaces)b::text[], %(keys)b::text[], %(texts)b::text[]) AS given (namespace, key, words)

-- name: vector_scores
SELECT namespace, key, {score} AS score
FROM found JOIN {vectors} USING (namespace, key)
GROUP BY namespace, key

-- name: text_scores
SELECT namespace, key, ts_rank_cd(words, asked)::float8 AS score
FROM found
JOIN {texts} USING (namespace, key)
CROSS JOIN (
    -- Any of the words: the more of them, and the closer together, the better.
    SELECT replace(plainto_tsquery(%(language)s::regconfig, %(query)s)::text, ''' & ''', ''' | ''')::tsquery AS asked
) AS question
WHERE words @@ asked

-- name: fused_scores
SELECT namespace, key,
       coalesce(1.0::float8 / (60 + by_vector.place), 0) + coalesce(1.0::float8 / (60 + by_text.place), 0) AS score
FROM (SELECT namespace, key, rank() OVER (ORDER BY score DESC) AS place FROM ({vector_scores}) AS scored) AS by_vector
FULL JOIN (SELECT namespace, key, rank() OVER (ORDER BY score DESC) AS place FROM ({text_scores}) AS scored) AS by_text
USING (namespace, key)

-- name: ranked_page
WITH found AS MATERIALIZED (
    SELECT namespace, key, updated_at FROM {items} WHERE {within} AND {live} AND {filter}
),
scores AS ({scores}),
page AS (
    SELECT namespace, key, score
    FROM found LEFT JOIN scores USING (namespace, key)
    ORDER BY score DESC NULLS LAST, updated_at DESC, string_to_array(namespace, '.') COLLATE "C", key
    LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint
)
SELECT {columns}, score
FROM page JOIN {items} AS item USING (namespace, key)
ORDER BY score DESC NULLS LAST, item.updated_at DESC, string_to_array(namespace, '.') COLLATE "C", key

-- name: walk_the_index
SELECT set_config(%(setting)s, %(order)s, true)

-- name: extension_version
SELECT extversion FROM pg_extension WHERE extname = 'vector'

-- name: near_page
-- Among many vectors the index finds the closest. Where there are few, or where it finds too few for the page, all
-- are compared: a part that is not needed is not run.
WITH size AS MATERIALIZED (
    SELECT count(*) > %(few)s::bigint AS is_large
    FROM (SELECT FROM {vectors} WHERE {within} LIMIT %(few)s::bigint + 1) AS counted
),
closest AS MATERIALIZED (
    SELECT namespace, key, embedding
    FROM {vectors} JOIN {items} USING (namespace, key)
    WHERE (SELECT is_large FROM size) AND {within} AND {live} AND {filter}
    ORDER BY {distance}
    LIMIT %(depth)s::bigint
),
near AS MATERIALIZED (SELECT namespace, key, {score} AS score FROM closest GROUP BY namespace, key),
answer AS MATERIALIZED (SELECT count(*) >= %(end)s::bigint AS is_complete FROM near),
found AS MATERIALIZED (
    SELECT namespace, key, updated_at FROM {items} WHERE {within} AND {live} AND {filter}
),
scores AS ({vector_scores}),
page AS (
    (SELECT namespace, key, score
     FROM near JOIN {items} AS item USING (namespace, key)
     WHERE (SELECT is_complete FROM answer)
     ORDER BY score DESC, item.updated_at DESC, string_to_array(namespace, '.') COLLATE "C", key
     LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint)
    UNION ALL
    (SELECT namespace, key, score
     FROM found LEFT JOIN scores USING (namespace, key)
     WHERE NOT (SELECT is_complete FROM answer)
     ORDER BY score DESC NULLS LAST, updated_at DESC, string_to_array(namespace, '.') COLLATE "C", key
     LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint)
)
SELECT {columns}, score
FROM page JOIN {items} AS item USING (namespace, key)
ORDER BY score DESC NULLS LAST, item.updated_at DESC, string_to_array(namespace, '.') COLLATE "C", key
