package store

import (
	"database/sql"
)

// Reader gives tests a look at rows that no method returns.
func (s *Store) Reader() *sql.DB { return s.r }

// Writer lets tests put rows where no method does.
func (s *Store) Writer() *sql.DB { return s.w }
