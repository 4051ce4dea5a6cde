-- Credit in and out by hand, and the expiry of granted credit. Every function locks the customer's account row first.

-- Where money comes from and goes to, in one currency. Idempotent.
CREATE FUNCTION open_system_accounts(a_currency text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO account (id, name, currency)
    SELECT system_account_id(name, a_currency), name, a_currency FROM unnest(ARRAY['funding', 'revenue', 'expired']) AS name
    ON CONFLICT DO NOTHING;
$$;

-- Takes usage from the lots, earliest expiry first, then moves what is left of expired lots to `expired`.
-- The caller holds the account's row lock. Between two calls the set of lots is constant, so the order in which usage
-- came does not matter and the hot path need not touch lots at all.
CREATE FUNCTION settle_lots(a_account uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    unsettled numeric;
    part numeric;
    lot credit_lot;
BEGIN
    SELECT * INTO holder FROM account WHERE id = a_account FOR NO KEY UPDATE;
    unsettled := holder.usage_total - holder.lots_usage;
    FOR lot IN SELECT * FROM credit_lot WHERE account_id = a_account AND remaining > 0 ORDER BY expires_at, id LOOP
        part := least(lot.remaining, unsettled);
        unsettled := unsettled - part;
        lot.remaining := lot.remaining - part;
        IF lot.expires_at <= now() AND lot.remaining > 0 THEN
            part := least(lot.remaining, greatest(holder.balance, 0));
            lot.remaining := 0;
            IF part > 0 THEN
                holder.balance := holder.balance - part;
                INSERT INTO transfer (id, kind, source, destination, amount, currency, key, reason, actor)
                VALUES (gen_random_uuid(), 'expiry', a_account, system_account_id('expired', holder.currency), part,
                        holder.currency, 'expiry:' || lot.id, 'granted credit expired unused', 'clearinghouse');
            END IF;
        END IF;
        UPDATE credit_lot SET remaining = lot.remaining WHERE id = lot.id;
    END LOOP;
    UPDATE account SET balance = holder.balance, lots_usage = usage_total,
           next_expiry_at = (SELECT min(expires_at) FROM credit_lot WHERE account_id = a_account AND remaining > 0)
     WHERE id = a_account;
END $$;

CREATE FUNCTION settle_due_lots() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    settled bigint := 0;
    due uuid;
BEGIN
    FOR due IN SELECT id FROM account WHERE next_expiry_at <= now() ORDER BY id FOR NO KEY UPDATE SKIP LOCKED LOOP
        PERFORM settle_lots(due);
        settled := settled + 1;
    END LOOP;
    RETURN settled;
END $$;

-- Grants credit; the same key again changes nothing and returns the first transfer. Raises unique_violation when the
-- key was used for another transfer.
CREATE FUNCTION grant_credit(
    a_id uuid, a_gateway uuid, a_amount numeric, a_expires_at timestamptz, a_key text, a_reason text, a_actor text
) RETURNS transfer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    done transfer;
BEGIN
    SELECT * INTO STRICT holder FROM account WHERE id = a_gateway AND gateway_id IS NOT NULL FOR NO KEY UPDATE;
    SELECT * INTO done FROM transfer WHERE key = a_key;
    IF FOUND THEN
        IF (done.kind, done.destination, done.amount) = ('grant', a_gateway, a_amount) THEN RETURN done; END IF;
        RAISE unique_violation USING MESSAGE = 'the key was used for another transfer';
    END IF;
    PERFORM settle_lots(a_gateway);
    INSERT INTO transfer (id, kind, source, destination, amount, currency, key, reason, actor)
    VALUES (a_id, 'grant', system_account_id('funding', holder.currency), a_gateway, a_amount, holder.currency,
            a_key, a_reason, a_actor) RETURNING * INTO done;
    UPDATE account SET balance = balance + a_amount WHERE id = a_gateway RETURNING * INTO holder;
    IF a_expires_at IS NOT NULL AND holder.balance > 0 THEN  -- what pays a debt is spent and cannot expire
        INSERT INTO credit_lot (id, account_id, amount, remaining, expires_at)
        VALUES (a_id, a_gateway, a_amount, least(a_amount, holder.balance), a_expires_at);
        UPDATE account SET next_expiry_at = least(next_expiry_at, a_expires_at) WHERE id = a_gateway;
    END IF;
    RETURN done;
END $$;

-- Takes credit back: permanent credit first, then the lots that expire last. Raises check_violation
-- (account_within_credit_limit) when more is asked for than is available.
CREATE FUNCTION withdraw_credit(
    a_id uuid, a_gateway uuid, a_amount numeric, a_key text, a_reason text, a_actor text
) RETURNS transfer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    done transfer;
    surplus numeric;
    lot credit_lot;
BEGIN
    SELECT * INTO STRICT holder FROM account WHERE id = a_gateway AND gateway_id IS NOT NULL FOR NO KEY UPDATE;
    SELECT * INTO done FROM transfer WHERE key = a_key;
    IF FOUND THEN
        IF (done.kind, done.source, done.amount) = ('withdrawal', a_gateway, a_amount) THEN RETURN done; END IF;
        RAISE unique_violation USING MESSAGE = 'the key was used for another transfer';
    END IF;
    PERFORM settle_lots(a_gateway);
    UPDATE account SET balance = balance - a_amount WHERE id = a_gateway RETURNING * INTO holder;
    INSERT INTO transfer (id, kind, source, destination, amount, currency, key, reason, actor)
    VALUES (a_id, 'withdrawal', a_gateway, system_account_id('funding', holder.currency), a_amount, holder.currency,
            a_key, a_reason, a_actor) RETURNING * INTO done;
    SELECT coalesce(sum(remaining), 0) - greatest(holder.balance, 0) INTO surplus
      FROM credit_lot WHERE account_id = a_gateway;
    FOR lot IN SELECT * FROM credit_lot WHERE account_id = a_gateway AND remaining > 0
                ORDER BY expires_at DESC, id DESC LOOP
        EXIT WHEN surplus <= 0;
        UPDATE credit_lot SET remaining = remaining - least(remaining, surplus) WHERE id = lot.id;
        surplus := surplus - least(lot.remaining, surplus);
    END LOOP;
    UPDATE account SET next_expiry_at =
        (SELECT min(expires_at) FROM credit_lot WHERE account_id = a_gateway AND remaining > 0) WHERE id = a_gateway;
    RETURN done;
END $$;
