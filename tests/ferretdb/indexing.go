package main

import (
	"database/sql"
	"fmt"
	"path/filepath"

	_ "modernc.org/sqlite"
)

const tablesWithoutIndex = `SELECT name FROM sqlite_master AS found
WHERE type = 'table' AND sql LIKE '%_ferretdb_sjson%'
  AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = found.name || '_by_id')`

// indexIDs gives each collection an index that finds a document by its _id: FerretDB's own is of another expression
// than its queries ask for, so they read the whole collection, and so does every update.
func indexIDs(directory string) error {
	files, err := filepath.Glob(filepath.Join(directory, "*.sqlite"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := indexFile(file); err != nil {
			return err
		}
	}
	return nil
}

func indexFile(file string) error {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	tables, err := names(db)
	if err != nil {
		return err
	}
	for _, table := range tables {
		index := fmt.Sprintf(`CREATE INDEX "%s_by_id" ON "%s" (_ferretdb_sjson->'$._id')`, table, table)
		if _, err := db.Exec(index); err != nil {
			return err
		}
	}
	return nil
}

func names(db *sql.DB) ([]string, error) {
	rows, err := db.Query(tablesWithoutIndex)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		found = append(found, name)
	}
	return found, rows.Err()
}
