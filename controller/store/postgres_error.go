package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// ways out of what PostgreSQL says, by SQLSTATE.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
var ways = map[string]string{
	"28P01": "correct the password: PGPASSWORD, a passfile, or database_password_file",
	"28000": "allow this user and host in pg_hba.conf, or make the user with createuser",
	"3D000": "make the database: createdb --owner USER NAME",
	"42501": "make the user the owner of the database: ALTER DATABASE NAME OWNER TO USER",
	"53300": "raise max_connections of PostgreSQL, or run fewer controllers: each uses up to 10",
	"53100": "make room on the disk of PostgreSQL; boxes keep what is not stored",
	"25006": "it is a standby: name the primary, or all hosts, in the address",
	"57P03": "it is starting up or shutting down; wait",
	"57014": "it took too long; see what PostgreSQL is busy with in pg_stat_activity",
	"55P03": "another session holds a lock; see pg_stat_activity",
}

// explain adds where it happened and the way out to errors of PostgreSQL.
func (e *postgres) explain(err error) error {
	var fault *pgconn.PgError
	var network net.Error
	switch {
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errExplained):
		return err
	case errors.As(err, &fault):
		if way, known := ways[fault.Code]; known {
			return explained{fmt.Errorf("%s: %w; %s", e.where, err, way)}
		}
	case isConnect(err) || errors.As(err, &network):
		return explained{fmt.Errorf("%s cannot be reached: %w; start PostgreSQL or correct the address", e.where, err)}
	case strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "conn closed"):
		return explained{fmt.Errorf("%s: the connection was lost: %w; PostgreSQL was stopped or the network failed", e.where, err)}
	}
	return err
}

func isConnect(err error) bool {
	var fault *pgconn.ConnectError
	return errors.As(err, &fault)
}

// errExplained marks errors that have their explanation.
var errExplained = errors.New("explained")

type explained struct{ error }

func (e explained) Unwrap() error        { return e.error }
func (e explained) Is(target error) bool { return target == errExplained }
