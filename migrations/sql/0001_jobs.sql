-- What is done on a schedule (settlement/schedule.py): which jobs there are, who leads, and one row for each run.
--
-- Two locks and one row keep a run single. Who leads holds the advisory lock `job lead`; whoever runs a job, by the
-- clock or by hand, holds `job NAME`. Both belong to a session that the server ends when it falls silent, and runs are
-- begun through that very session: a run that is begun is begun by who holds the lock. The row is the fence: whoever
-- holds the lock of a job whose row is still open knows that its process was given up, and ends the row; a transaction
-- of that process, if it comes back, finds its row ended and does not commit.

-- Registered by whoever leads, so that others can tell what is late without knowing the code of the jobs.
CREATE TABLE job (
    name text PRIMARY KEY,
    every_s integer NOT NULL CHECK (every_s > 0),
    -- A run is due at whole multiples of every_s since 1970, plus this.
    offset_s integer NOT NULL CHECK (offset_s >= 0 AND offset_s < every_s),
    -- Nothing is late that nobody could have begun yet.
    registered_at timestamptz NOT NULL
);

-- Who led last. Whether it still does, the lock says that it holds.
CREATE TABLE job_lead (
    is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    leader text NOT NULL,
    since timestamptz NOT NULL
);

CREATE TABLE job_run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job text NOT NULL,
    -- The newest time at which the job was due when the run began.
    due_at timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    -- lost: the process ended, or was given up, before the run did. It does not count: the job is still due.
    outcome text CHECK (outcome IN ('ok', 'failed', 'lost')),
    -- One line of what it did.
    said text,
    -- Of a failure: its kind, which does not change with its words, and one line of what it was.
    error_kind text,
    error text,
    -- Host and process.
    leader text NOT NULL,
    by_hand boolean NOT NULL,
    CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    CHECK ((error_kind IS NOT NULL) = (outcome IS NOT DISTINCT FROM 'failed'))
);
CREATE UNIQUE INDEX job_run_running ON job_run (job) WHERE ended_at IS NULL;
CREATE INDEX job_run_newest ON job_run (job, id);
CREATE INDEX job_run_due ON job_run (job, due_at);

-- Ends what a process left open that was given up. Only for the session that holds the lock of the job.
CREATE FUNCTION give_up_job_run(a_job text, a_now timestamptz) RETURNS void LANGUAGE sql AS $$
    UPDATE job_run SET ended_at = greatest(a_now, started_at), outcome = 'lost' WHERE job = a_job AND ended_at IS NULL
$$;

-- The id of the new run; NULL where the job has been run since it was due, unless by hand. A run for a time that is yet
-- to come does not count: some clock was ahead, and the job would wait for that time. Clocks may differ by ten minutes.
-- Only for the session that holds the lock of the job. Waits for a commit of the run that it ends, should one be under
-- way.
CREATE FUNCTION begin_job_run(a_job text, a_due_at timestamptz, a_now timestamptz, a_leader text, a_by_hand boolean)
    RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_id bigint;
BEGIN
    PERFORM give_up_job_run(a_job, a_now);
    IF NOT a_by_hand AND EXISTS (
        SELECT FROM job_run WHERE job = a_job AND due_at BETWEEN a_due_at AND a_now + interval '10 minutes'
           AND outcome IN ('ok', 'failed')
    ) THEN
        RETURN NULL;
    END IF;
    INSERT INTO job_run (job, due_at, started_at, leader, by_hand)
         VALUES (a_job, a_due_at, a_now, a_leader, a_by_hand) RETURNING id INTO v_id;
    RETURN v_id;
END $$;

-- These are the jobs from now on, and this is who leads. Only for the session that holds the lock of the lead.
CREATE FUNCTION register_jobs(a_leader text, a_now timestamptz, a_names text[], a_every_s integer[],
                              a_offset_s integer[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_lead (leader, since) VALUES (a_leader, a_now)
        ON CONFLICT (is_one) DO UPDATE SET leader = a_leader, since = a_now;
    DELETE FROM job WHERE NOT name = ANY (a_names);
    INSERT INTO job (name, every_s, offset_s, registered_at)
         SELECT name, every_s, offset_s, a_now FROM unnest(a_names, a_every_s, a_offset_s) AS given (name, every_s, offset_s)
        ON CONFLICT (name) DO UPDATE SET every_s = excluded.every_s, offset_s = excluded.offset_s
         WHERE (job.every_s, job.offset_s) IS DISTINCT FROM (excluded.every_s, excluded.offset_s);
END $$;
