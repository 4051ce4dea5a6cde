-- Credit in and out: by hand, by payments and corrections, and its expiry. Every function locks the customer's account
-- row first.

-- Where money comes from and goes to, in one currency. Idempotent.
CREATE FUNCTION open_system_accounts(a_currency text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO account (id, name, currency)
    SELECT system_account_id(name, a_currency), name, a_currency FROM unnest(ARRAY[
        'funding', 'revenue', 'expired', 'written_off', 'rounding', 'included']) AS name
    ON CONFLICT DO NOTHING;
$$;

-- Takes usage from the lots in their order, then moves what is left of expired lots to `expired`: all of them at once,
-- however many there are, and no lot is written that stays as it is.
-- The caller holds the account's row lock. Between two calls the set of lots is constant, so the order in which usage
-- came does not matter and the hot path need not touch lots at all.
CREATE FUNCTION settle_lots(a_account uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    at timestamptz;
    unsettled numeric;
    lapsed numeric;
BEGIN
    SELECT * INTO holder FROM account WHERE id = a_account FOR NO KEY UPDATE;
    at := clock_timestamp();
    unsettled := holder.usage_total - holder.lots_usage;
    WITH used AS (
        SELECT id, rank, expires_at,
               least(remaining, greatest(sum(remaining) OVER in_order - unsettled, 0)) AS unused
          FROM credit_lot WHERE account_id = a_account AND remaining > 0
        WINDOW in_order AS (ORDER BY rank, expires_at, id)),
    -- Of granted credit no more than there still is: debts were paid with the rest.
    judged AS (
        SELECT id, CASE WHEN expires_at > at THEN unused ELSE 0 END AS remaining,
               CASE WHEN expires_at > at THEN 0 WHEN rank = 1 THEN unused
                    ELSE least(unused, greatest(holder.balance - sum(unused) FILTER (WHERE expires_at <= at)
                                                                 OVER in_order + unused, 0)) END AS lapsing
          FROM used
        WINDOW in_order AS (ORDER BY rank, expires_at, id)),
    written AS (
        UPDATE credit_lot AS lot SET remaining = judged.remaining FROM judged
         WHERE lot.id = judged.id AND lot.remaining <> judged.remaining),
    expired AS (
        INSERT INTO transfer (id, kind, source, destination, amount, currency, key, reason, actor)
        SELECT gen_random_uuid(), 'expiry', a_account, system_account_id('expired', holder.currency), lapsing,
               holder.currency, 'expiry:' || id, 'granted credit expired unused', 'clearinghouse'
          FROM judged WHERE lapsing > 0
        RETURNING amount)
    SELECT coalesce(sum(amount), 0) INTO lapsed FROM expired;
    UPDATE account SET balance = balance - lapsed, lots_usage = usage_total,
           overdrawn = greatest(0, -(balance - lapsed) - credit_limit),
           next_expiry_at = (SELECT min(expires_at) FROM credit_lot WHERE account_id = a_account AND remaining > 0)
     WHERE id = a_account;
END $$;

-- Whoever signs for these waits until the transaction ends: where many are due at one instant, ask for few, and again; and
-- nothing is waited for that others hold for longer than a moment.
CREATE FUNCTION settle_due_lots(a_at_most integer DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    settled bigint := 0;
    due uuid;
BEGIN
    FOR due IN SELECT id FROM account WHERE next_expiry_at <= now() ORDER BY id LIMIT a_at_most
                  FOR NO KEY UPDATE SKIP LOCKED LOOP
        PERFORM settle_lots(due);
        settled := settled + 1;
    END LOOP;
    RETURN settled;
END $$;

-- What just entered the balance, or what it leaves of a debt, expires: what pays a debt is spent and cannot. What is
-- included in a subscription is for usage alone and pays nothing, such as the subscription's own fee: it expires as a whole.
CREATE FUNCTION open_lot(a_entry transfer, a_expires_at timestamptz, a_rank integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder uuid := a_entry.destination;
    lasting numeric;
BEGIN
    lasting := CASE a_rank WHEN 1 THEN a_entry.amount ELSE least(a_entry.amount, (
        SELECT balance - (SELECT coalesce(sum(remaining), 0) FROM credit_lot WHERE account_id = holder AND rank = 1)
          FROM account WHERE id = holder)) END;
    IF a_expires_at IS NULL OR lasting <= 0 THEN
        RETURN;
    END IF;
    INSERT INTO credit_lot (id, account_id, rank, amount, remaining, expires_at)
    VALUES (a_entry.id, holder, a_rank, a_entry.amount, lasting, a_expires_at);
    UPDATE account SET next_expiry_at = least(next_expiry_at, a_expires_at) WHERE id = holder;
END $$;

-- After credit was taken back: permanent credit went first, then the lots that would have been used last. What is included
-- in a subscription is not money, and stays.
CREATE FUNCTION shrink_lots(a_account uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    surplus numeric;
    lot credit_lot;
BEGIN
    SELECT open.granted - greatest(balance - open.included, 0) INTO surplus
      FROM account CROSS JOIN (
           SELECT coalesce(sum(remaining) FILTER (WHERE rank = 0), 0) AS granted,
                  coalesce(sum(remaining) FILTER (WHERE rank = 1), 0) AS included
             FROM credit_lot WHERE account_id = a_account) AS open
     WHERE id = a_account;
    FOR lot IN SELECT * FROM credit_lot WHERE account_id = a_account AND rank = 0 AND remaining > 0
                ORDER BY expires_at DESC, id DESC LOOP
        EXIT WHEN surplus <= 0;
        UPDATE credit_lot SET remaining = remaining - least(remaining, surplus) WHERE id = lot.id;
        surplus := surplus - least(lot.remaining, surplus);
    END LOOP;
    UPDATE account SET next_expiry_at =
        (SELECT min(expires_at) FROM credit_lot WHERE account_id = a_account AND remaining > 0) WHERE id = a_account;
END $$;

-- A changed limit changes by how much the balance is below it. Nothing on the way of a payment sets one.
CREATE FUNCTION follow_credit_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.overdrawn := greatest(0, least(NEW.overdrawn, -NEW.balance - NEW.credit_limit));
    RETURN NEW;
END $$;
CREATE TRIGGER follow_credit_limit BEFORE UPDATE OF credit_limit ON account
    FOR EACH ROW EXECUTE FUNCTION follow_credit_limit();

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
    UPDATE account SET balance = balance + a_amount,
           overdrawn = greatest(0, -(balance + a_amount) - credit_limit) WHERE id = a_gateway;
    PERFORM open_lot(done, a_expires_at, 0);
    RETURN done;
END $$;

-- Takes credit back: permanent credit first, then the lots that would be used last. Raises check_violation
-- (account_within_credit_limit) when more is asked for than is available.
CREATE FUNCTION withdraw_credit(
    a_id uuid, a_gateway uuid, a_amount numeric, a_key text, a_reason text, a_actor text
) RETURNS transfer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    done transfer;
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
    PERFORM shrink_lots(a_gateway);
    RETURN done;
END $$;

-- What a customer pays, gets back or is charged beside usage: `a_amount` enters the account, or leaves it where it is
-- negative. The same key again changes nothing and returns the first transfer; raises unique_violation where the key was
-- used for another. What is taken back may leave the account below its limit: then nothing is signed for it until that
-- is made up for, but the books say what is owed.
CREATE FUNCTION book_entry(
    a_id uuid, a_kind text, a_gateway uuid, a_amount numeric, a_expires_at timestamptz, a_key text, a_reason text,
    a_actor text
) RETURNS transfer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    done transfer;
    other uuid;
    sides text;  -- the signs that this kind has
BEGIN
    SELECT * INTO STRICT holder FROM account WHERE id = a_gateway AND gateway_id IS NOT NULL FOR NO KEY UPDATE;
    SELECT system_account_id(name, holder.currency), signs INTO STRICT other, sides FROM (VALUES
        ('payment', 'funding', '+'), ('refund', 'funding', '-'), ('dispute', 'funding', '-'),
        ('dispute_won', 'funding', '+'), ('write_off', 'written_off', '+'), ('rounding', 'rounding', '+-'),
        ('adjustment', 'revenue', '+-'), ('fee', 'revenue', '-'), ('included', 'included', '+-')
        ) AS known (kind, name, signs) WHERE kind = a_kind;
    IF a_key IS NULL OR a_amount = 0 OR position((CASE WHEN a_amount > 0 THEN '+' ELSE '-' END) IN sides) = 0
       OR a_expires_at IS NOT NULL AND a_kind <> 'included' THEN
        RAISE check_violation USING MESSAGE = format('an entry of kind %s cannot be of %s', a_kind, a_amount);
    END IF;
    SELECT * INTO done FROM transfer WHERE key = a_key;
    IF FOUND THEN
        IF (done.kind, done.amount) = (a_kind, abs(a_amount))
           AND a_gateway = (CASE WHEN a_amount > 0 THEN done.destination ELSE done.source END) THEN RETURN done; END IF;
        RAISE unique_violation USING MESSAGE = 'the key was used for another transfer';
    END IF;
    PERFORM settle_lots(a_gateway);
    INSERT INTO transfer (id, kind, source, destination, amount, currency, key, reason, actor)
    VALUES (a_id, a_kind, CASE WHEN a_amount > 0 THEN other ELSE a_gateway END,
            CASE WHEN a_amount > 0 THEN a_gateway ELSE other END, abs(a_amount), holder.currency, a_key, a_reason,
            a_actor) RETURNING * INTO done;
    UPDATE account SET balance = balance + a_amount,
           overdrawn = greatest(0, -(balance + a_amount) - credit_limit) WHERE id = a_gateway;
    IF a_amount > 0 THEN
        PERFORM open_lot(done, a_expires_at, 1);
    ELSE
        PERFORM shrink_lots(a_gateway);
    END IF;
    RETURN done;
END $$;
