-- Signers that ask us before they release a payment, and the secrets by which they prove who they are.
CREATE TABLE webhook_signer (
    id                  uuid PRIMARY KEY,
    name                text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 128),
    sender              address NOT NULL,        -- whose deposit its tickets are drawn on
    face_value_max_wei  wei CHECK (face_value_max_wei > 0),  -- as set at the signer: the webhook is shown no face value
    created_at          timestamptz NOT NULL DEFAULT now(),
    revoked_at          timestamptz              -- with all its secrets
);

-- At most two of a signer are valid at once: the newest, and the one before it while it is being replaced. Whoever adds
-- one holds the signer's row (identity/webhook_signers.py).
CREATE TABLE webhook_secret (
    id           uuid PRIMARY KEY,
    signer_id    uuid NOT NULL REFERENCES webhook_signer,
    public_id    text NOT NULL UNIQUE,           -- the part of the secret that may be shown
    secret_hmac  hash32 NOT NULL,                -- HMAC-SHA256 of the secret under the pepper
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX webhook_secret_signer ON webhook_secret (signer_id);
