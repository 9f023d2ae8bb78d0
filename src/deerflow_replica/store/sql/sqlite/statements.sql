-- name: about
SELECT number FROM store_about WHERE name = :name

-- name: note
INSERT INTO store_about (name, number) VALUES (:name, :number)
ON CONFLICT (name) DO UPDATE SET number = excluded.number

-- name: take_versions
UPDATE store_about SET number = number + :count WHERE name = 'version' RETURNING number

-- name: get
SELECT namespace, key, document, version, created_at, updated_at, ttl IS NOT NULL
FROM store_items
WHERE namespace = :namespace AND key = :key
  AND (NOT :live OR expires_at IS NULL OR expires_at > :now)

-- name: page
WITH page AS (
    SELECT id, updated_at, replace(namespace, '.', char(0)) AS labels, key -- U+0000 sorts as the end of a label does
    FROM store_items
    WHERE {found}
    ORDER BY updated_at DESC, labels, key
    LIMIT :limit OFFSET :offset
)
SELECT items.namespace, items.key, document, version, created_at, items.updated_at, ttl IS NOT NULL
FROM page JOIN store_items AS items USING (id)
ORDER BY page.updated_at DESC, page.labels, page.key

-- name: ranked_page
WITH found AS MATERIALIZED (SELECT id FROM store_items WHERE {found}),
page AS (
    SELECT id, updated_at, replace(namespace, '.', char(0)) AS labels, key, max({score}(vector)) AS score
    FROM found JOIN store_items USING (id) LEFT JOIN store_item_vectors ON item = id
    GROUP BY id
    ORDER BY score IS NULL, score DESC, updated_at DESC, labels, key
    LIMIT :limit OFFSET :offset
)
SELECT items.namespace, items.key, document, version, created_at, items.updated_at, ttl IS NOT NULL, score
FROM page JOIN store_items AS items USING (id)
ORDER BY score IS NULL, score DESC, page.updated_at DESC, page.labels, page.key

-- name: count
SELECT count(*) FROM store_items WHERE {found}

-- name: found
{below}
  AND (NOT :live OR expires_at IS NULL OR expires_at > :now)
  AND (:text IS NULL OR instr(document, :text))
  AND (NOT :is_filtered OR {matches}(document))

-- name: below
(namespace = :prefix OR (namespace > :prefix || '.' AND namespace < :prefix || '/')) -- "/" is what follows "."

-- name: namespaces
WITH RECURSIVE each (namespace) AS (
    SELECT min(namespace) FROM store_items WHERE namespace >= :prefix
    UNION ALL
    SELECT (SELECT min(namespace) FROM store_items WHERE namespace > each.namespace)
    FROM each
    WHERE each.namespace = :prefix OR substr(each.namespace, 1, length(:prefix)) = :prefix
)
SELECT namespace FROM each
WHERE namespace IS NOT NULL
  AND (NOT :live OR EXISTS (
      SELECT 1 FROM store_items AS items
      WHERE items.namespace = each.namespace AND (expires_at IS NULL OR expires_at > :now)
  ))

-- name: put
INSERT INTO store_items (namespace, key, document, version, created_at, updated_at, ttl, expires_at)
VALUES (:namespace, :key, :document, :version, :now, :now, :ttl, :now + :ttl)
ON CONFLICT (namespace, key) DO UPDATE SET
    document = excluded.document,
    version = excluded.version,
    created_at = iif(:live AND expires_at <= :now, :now, created_at),
    updated_at = max(:now, iif(:live AND expires_at <= :now, :now, created_at)), -- a clock may be set back
    ttl = iif(:keeps_ttl AND NOT (:live AND ifnull(expires_at <= :now, false)), ttl, excluded.ttl),
    expires_at = iif(:keeps_ttl AND NOT (:live AND ifnull(expires_at <= :now, false)), expires_at, excluded.expires_at)
RETURNING id, version, created_at, updated_at

-- name: restore
INSERT INTO store_items (namespace, key, document, version, created_at, updated_at, ttl, expires_at)
VALUES (:namespace, :key, :document, :version, :created_at, :updated_at, :ttl, :expires_at)
ON CONFLICT (namespace, key) DO UPDATE SET
    document = excluded.document,
    version = excluded.version,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at,
    ttl = excluded.ttl,
    expires_at = excluded.expires_at
WHERE :on_conflict = 'replace' OR (:on_conflict = 'newer' AND excluded.updated_at > updated_at)
RETURNING id, version, created_at, updated_at

-- name: drop_vectors
DELETE FROM store_item_vectors WHERE item = :item

-- name: add_vector
INSERT INTO store_item_vectors (item, path, vector) VALUES (:item, :path, :vector)

-- name: current
SELECT version FROM store_items
WHERE namespace = :namespace AND key = :key
  AND (NOT :live OR expires_at IS NULL OR expires_at > :now)

-- name: delete
DELETE FROM store_items WHERE namespace = :namespace AND key = :key

-- name: touch
UPDATE store_items SET expires_at = :now + ttl WHERE namespace = :namespace AND key = :key AND expires_at > :now

-- name: delete_namespace
DELETE FROM store_items WHERE {below}
RETURNING NOT :live OR expires_at IS NULL OR expires_at > :now

-- name: sweep
DELETE FROM store_items
WHERE id IN (SELECT id FROM store_items WHERE expires_at <= :now LIMIT :limit)
