-- What an ETH cost, as sources said, and what operators said instead. Charges are not made from these rows: each keeps
-- the price that it was made with. They show afterwards what was known when.

-- One row for each time that a source gave a new price; other processes that saw the same add nothing.
CREATE TABLE price_observation (
    source       text NOT NULL,                  -- chainlink, or second_opinion: by the minute
    currency     currency NOT NULL,
    observed_at  timestamptz NOT NULL,           -- by the source's clock; of a cross rate, its older part's
    price        price NOT NULL,                 -- `currency` per ETH
    block_hash   hash32,                         -- where it was first seen on the chain
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (currency, source, observed_at, price)
);
CREATE INDEX price_observation_age ON price_observation (recorded_at);

-- A price that an operator set in place of every source, until a time. The newest row of a currency holds; without a
-- price it ends the one before. No row is changed or removed: who set what, and why, is kept.
CREATE TABLE price_override (
    id          uuid PRIMARY KEY,
    currency    currency NOT NULL CHECK (currency <> 'ETH'),
    price       price,
    until       timestamptz CHECK ((until IS NULL) = (price IS NULL)),
    reason      text NOT NULL DEFAULT '' CHECK (length(reason) <= 1000),
    actor       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX price_override_newest ON price_override (currency, created_at, id);

CREATE VIEW price_override_in_force AS
    SELECT * FROM (SELECT DISTINCT ON (currency) * FROM price_override
                    ORDER BY currency, created_at DESC, id DESC) AS newest
     WHERE until > now();

-- Forgets what was recorded longer ago. Returns how many rows that were, at most 10,000.
CREATE FUNCTION forget_price_observations(older_than interval) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH forgotten AS (
        DELETE FROM price_observation WHERE (currency, source, observed_at, price) IN (
            SELECT currency, source, observed_at, price FROM price_observation WHERE recorded_at < now() - older_than
             ORDER BY recorded_at LIMIT 10000 FOR UPDATE SKIP LOCKED)
        RETURNING 1)
    SELECT count(*) FROM forgotten;
$$;
