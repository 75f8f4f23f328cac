-- The web shop's outbox: an event is a row, written in the transaction that it belongs to. Debezium's outbox router sends it
-- to its topic as a CloudEvent (examples/retail/connectors/outbox.json). A schema of its own keeps it out of the tables that the
-- shop's other connector captures.

CREATE SCHEMA outbox;

CREATE TABLE outbox.events (
    id            uuid PRIMARY KEY,
    topic         text NOT NULL,
    source        text NOT NULL,
    type          text NOT NULL,
    subject       text NOT NULL,  -- the record's key: events of one subject stay in order
    time          timestamptz NOT NULL,
    correlationid text NOT NULL,
    causationid   text NOT NULL,  -- the router sends null as a header without a value, which readers trip over
    data          jsonb NOT NULL,
    -- What all events share. Connect's own way to add a header takes 1.0 for a number.
    specversion     text NOT NULL DEFAULT '1.0',
    datacontenttype text NOT NULL DEFAULT 'application/json'
);

CREATE TABLE outbox.web_orders (
    order_id    uuid PRIMARY KEY,
    store_id    integer NOT NULL,
    customer_id bigint,
    total_cents bigint NOT NULL,
    status      text NOT NULL,
    placed_at   timestamptz NOT NULL
);
