package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/secrets"
)

// broker publishes each result to a topic with QoS 1. A connection that fails
// is replaced with the next batch; paho's own reconnecting is off, so that there
// is one back-off.
type broker struct {
	cfg    Target
	url    *url.URL
	client mqtt.Client
}

func newBroker(cfg Target, u *url.URL) (*broker, error) {
	if cfg.Topic == "" {
		cfg.Topic = "edgeherd/results/{input}"
	}
	switch {
	case cfg.SecretFile != "":
		return nil, errors.New("secret_file is for kind webhook")
	case strings.ContainsAny(cfg.Topic, "+#\x00") || len(cfg.Topic) > 200:
		return nil, fmt.Errorf("topic %q: no + or #, at most 200 bytes", cfg.Topic)
	case (cfg.Username == "") != (cfg.PasswordFile == ""):
		return nil, errors.New("username and password_file go together")
	}
	if _, err := trusting(cfg.CAFile); err != nil {
		return nil, err
	}
	return &broker{cfg: cfg, url: u}, nil
}

func (b *broker) connect(ctx context.Context) error {
	if b.client != nil && b.client.IsConnectionOpen() {
		return nil
	}
	b.close()
	scheme, port := "tcp", "1883"
	if b.url.Scheme == "mqtts" {
		scheme, port = "ssl", "8883"
	}
	if p := b.url.Port(); p != "" {
		port = p
	}
	tlsConfig, err := trusting(b.cfg.CAFile)
	if err != nil {
		return err
	}
	opts := mqtt.NewClientOptions().AddBroker(scheme + "://" + net.JoinHostPort(b.url.Hostname(), port)).
		SetClientID("edgeherd-" + b.cfg.Name).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).
		SetConnectTimeout(10 * time.Second).SetWriteTimeout(10 * time.Second).SetKeepAlive(30 * time.Second).SetTLSConfig(tlsConfig)
	if b.cfg.Username != "" {
		password, err := secrets.Read(b.cfg.PasswordFile)
		if err != nil {
			return err
		}
		opts.SetUsername(b.cfg.Username).SetPassword(password)
	}
	b.client = mqtt.NewClient(opts)
	if err := wait(ctx, b.client.Connect()); err != nil {
		b.close()
		return fmt.Errorf("connect to broker: %w", err)
	}
	return nil
}

func wait(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *broker) send(ctx context.Context, _ string, batch []inputs.Queued) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	tokens := make([]mqtt.Token, 0, len(batch))
	for _, q := range batch {
		var of struct {
			Input string `json:"input"`
		}
		if err := json.Unmarshal(q.Body, &of); err != nil {
			return &refusedError{err.Error()}
		}
		// An input's name must not make levels or wildcards of its own.
		name := strings.NewReplacer("/", "_", "+", "_", "#", "_", "\x00", "_").Replace(of.Input)
		tokens = append(tokens, b.client.Publish(strings.ReplaceAll(b.cfg.Topic, "{input}", name), 1, false, []byte(q.Body)))
	}
	for _, t := range tokens {
		if err := wait(ctx, t); err != nil {
			b.close()
			return fmt.Errorf("publish to broker: %w", err)
		}
	}
	return nil
}

func (b *broker) close() {
	if b.client != nil {
		b.client.Disconnect(250)
		b.client = nil
	}
}
