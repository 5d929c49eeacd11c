-- Accounts, friendships, results, and the notes of what has changed about them.
--
-- Others may write to these tables, in any way that SQL allows. They never give a revision: triggers do, and note every
-- change in `changes`, where the hub finds it. Names are unqualified: everything lives in the schema of whoever migrates,
-- and the functions remember it, whatever the schema and the rights of whoever writes later.

SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- Tables ---------------------------------------------------------------------------------------------------------------

-- `revision` goes up with every change of a user, in microseconds; that of a kind is the value it took when that kind
-- changed last. Whatever a writer puts into `revision` is ignored. Another value in the revision of a kind is a wish
-- that this kind be told again: the triggers below use that.
CREATE TABLE users (
    id               bigint PRIMARY KEY CHECK (id BETWEEN 1 AND 9007199254740991),
    username         text NOT NULL,
    avatar           text NOT NULL DEFAULT '',
    deleted_at       timestamptz,
    -- The defaults count only where somebody has disabled the triggers, to load what need not be told.
    revision         bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000000,
    profile_revision bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000000,
    stats_revision   bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000000,
    friends_revision bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000000,
    matches_revision bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()) * 1000000
);

-- A row says that `user_id` has asked. A friendship holds where both rows exist.
CREATE TABLE friendships (
    user_id   bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    friend_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    asked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, friend_id),
    CHECK (user_id <> friend_id)
);

CREATE INDEX friendships_reverse ON friendships (friend_id, user_id);

CREATE TABLE game_stats (
    user_id bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    wins    int NOT NULL DEFAULT 0 CHECK (wins >= 0),
    losses  int NOT NULL DEFAULT 0 CHECK (losses >= 0)
);

CREATE TABLE matches (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    player_a  bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    player_b  bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    winner    bigint NOT NULL,
    score_a   int NOT NULL,
    score_b   int NOT NULL,
    played_at timestamptz NOT NULL DEFAULT now(),
    CHECK (player_a <> player_b),
    CHECK (winner IN (player_a, player_b))
);

-- For the newest matches of one player, on either side.
CREATE INDEX matches_of_a ON matches (player_a, played_at DESC, id DESC);
CREATE INDEX matches_of_b ON matches (player_b, played_at DESC, id DESC);

-- The one image that a user has uploaded.
CREATE TABLE avatars (
    user_id    bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    hash       text NOT NULL,
    media_type text NOT NULL,
    image      bytea NOT NULL
);

-- What has not been published yet: at most one row of each user and kind. The users may be gone.
CREATE TABLE changes (
    user_id  bigint NOT NULL,
    kind     text NOT NULL CHECK (kind IN ('profile', 'stats', 'friends', 'matches', 'deleted')),
    revision bigint NOT NULL,
    PRIMARY KEY (user_id, kind)
);

-- The oldest are published first.
CREATE INDEX changes_oldest ON changes (revision);

-- Notes ----------------------------------------------------------------------------------------------------------------

-- Rings for whoever listens. Postgres folds equal notifications of one transaction into one.
CREATE FUNCTION changes_ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM noted) THEN
        PERFORM pg_notify('vigie_changes', '');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER changes_ring_insert AFTER INSERT ON changes REFERENCING NEW TABLE AS noted
    FOR EACH STATEMENT EXECUTE FUNCTION changes_ring();
CREATE TRIGGER changes_ring_update AFTER UPDATE ON changes REFERENCING NEW TABLE AS noted
    FOR EACH STATEMENT EXECUTE FUNCTION changes_ring();

-- Users ----------------------------------------------------------------------------------------------------------------

CREATE FUNCTION users_begin() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := extract(epoch FROM clock_timestamp()) * 1000000;
    NEW.profile_revision := NEW.revision;
    NEW.stats_revision := NEW.revision;
    NEW.friends_revision := NEW.revision;
    NEW.matches_revision := NEW.revision;
    RETURN NEW;
END $$;

CREATE TRIGGER users_begin BEFORE INSERT ON users
    FOR EACH ROW EXECUTE FUNCTION users_begin();

-- Gives the next revision to what has changed, or is wished to be told again.
CREATE FUNCTION users_revise() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    profile boolean := (NEW.username, NEW.avatar, NEW.profile_revision)
        IS DISTINCT FROM (OLD.username, OLD.avatar, OLD.profile_revision);
    stats   boolean := NEW.stats_revision IS DISTINCT FROM OLD.stats_revision;
    friends boolean := NEW.friends_revision IS DISTINCT FROM OLD.friends_revision;
    matches boolean := NEW.matches_revision IS DISTINCT FROM OLD.matches_revision;
    deleted boolean := NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL;
BEGIN
    IF NEW.id <> OLD.id THEN
        RAISE EXCEPTION 'the id of a user never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.deleted_at IS NULL AND OLD.deleted_at IS NOT NULL THEN
        RAISE EXCEPTION 'a deleted account stays deleted' USING ERRCODE = 'check_violation';
    END IF;
    NEW.revision := OLD.revision;
    NEW.profile_revision := OLD.profile_revision;
    NEW.stats_revision := OLD.stats_revision;
    NEW.friends_revision := OLD.friends_revision;
    NEW.matches_revision := OLD.matches_revision;
    -- Nobody is told of a deleted account any more.
    IF OLD.deleted_at IS NOT NULL OR NOT (profile OR stats OR friends OR matches OR deleted) THEN
        RETURN NEW;
    END IF;
    NEW.revision := greatest(OLD.revision + 1, extract(epoch FROM clock_timestamp()) * 1000000);
    IF deleted THEN
        RETURN NEW;
    END IF;
    IF profile THEN NEW.profile_revision := NEW.revision; END IF;
    IF stats   THEN NEW.stats_revision   := NEW.revision; END IF;
    IF friends THEN NEW.friends_revision := NEW.revision; END IF;
    IF matches THEN NEW.matches_revision := NEW.revision; END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER users_revise BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION users_revise();

-- Notes what users_begin and users_revise have numbered, once for all the rows of a statement. The functions from here
-- on run with the rights of whoever migrated: those who may change a user need no rights on `changes`.
CREATE FUNCTION users_note_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO changes
    SELECT id, CASE WHEN deleted_at IS NULL THEN 'profile' ELSE 'deleted' END, revision FROM new_rows ORDER BY id
    ON CONFLICT (user_id, kind) DO UPDATE SET revision = excluded.revision;
    RETURN NULL;
END $$;

CREATE TRIGGER users_note_insert AFTER INSERT ON users REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION users_note_insert();

CREATE FUNCTION users_note_update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    deleted bigint[];
BEGIN
    INSERT INTO changes
    SELECT n.id, c.kind, n.revision
      FROM new_rows n JOIN old_rows o ON o.id = n.id AND o.revision <> n.revision,
           LATERAL (VALUES ('profile', n.profile_revision <> o.profile_revision),
                           ('stats', n.stats_revision <> o.stats_revision),
                           ('friends', n.friends_revision <> o.friends_revision),
                           ('matches', n.matches_revision <> o.matches_revision),
                           ('deleted', o.deleted_at IS NULL AND n.deleted_at IS NOT NULL)) AS c (kind, changed)
     WHERE c.changed
     ORDER BY n.id, c.kind
    ON CONFLICT (user_id, kind) DO UPDATE SET revision = excluded.revision;

    -- A deleted account has no friends, no picture, and nothing else to be told.
    SELECT array_agg(n.id) INTO deleted FROM new_rows n JOIN old_rows o ON o.id = n.id
     WHERE o.deleted_at IS NULL AND n.deleted_at IS NOT NULL;
    IF deleted IS NOT NULL THEN
        DELETE FROM changes WHERE user_id = ANY (deleted) AND kind <> 'deleted';
        DELETE FROM friendships WHERE user_id = ANY (deleted) OR friend_id = ANY (deleted);
        DELETE FROM avatars WHERE user_id = ANY (deleted);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER users_note_update AFTER UPDATE ON users REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION users_note_update();

CREATE FUNCTION users_note_delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM changes USING old_rows WHERE user_id = id AND kind <> 'deleted';
    -- Of those that were deleted before, it has been noted then.
    INSERT INTO changes
    SELECT id, 'deleted', greatest(revision + 1, extract(epoch FROM clock_timestamp()) * 1000000)
      FROM old_rows WHERE deleted_at IS NULL ORDER BY id
    ON CONFLICT (user_id, kind) DO UPDATE SET revision = excluded.revision;
    RETURN NULL;
END $$;

CREATE TRIGGER users_note_delete AFTER DELETE ON users REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION users_note_delete();

-- Friendships ----------------------------------------------------------------------------------------------------------

-- Gives the friends of these users another revision.
CREATE FUNCTION friends_changed(concerned bigint[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM users WHERE id = ANY (concerned) ORDER BY id FOR NO KEY UPDATE;
    UPDATE users SET friends_revision = 0 WHERE id = ANY (concerned);
END $$;

CREATE FUNCTION friendships_note_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    concerned bigint[];
BEGIN
    -- Of two who ask each other in the same moment, the second has to see the first: the lock makes it wait for it.
    PERFORM FROM users WHERE id IN (SELECT user_id FROM new_rows UNION SELECT friend_id FROM new_rows)
      ORDER BY id FOR NO KEY UPDATE;
    SELECT array_agg(DISTINCT side) INTO concerned
      FROM new_rows n
      JOIN friendships back ON back.user_id = n.friend_id AND back.friend_id = n.user_id,
           LATERAL (VALUES (n.user_id), (n.friend_id)) AS sides (side);
    IF concerned IS NOT NULL THEN
        PERFORM friends_changed(concerned);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER friendships_note_insert AFTER INSERT ON friendships REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION friendships_note_insert();

CREATE FUNCTION friendships_note_delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    concerned bigint[];
BEGIN
    PERFORM FROM users WHERE id IN (SELECT user_id FROM old_rows UNION SELECT friend_id FROM old_rows)
      ORDER BY id FOR NO KEY UPDATE;
    -- It held where the other direction is still there, or went in the same statement.
    SELECT array_agg(DISTINCT side) INTO concerned
      FROM old_rows o,
           LATERAL (VALUES (o.user_id), (o.friend_id)) AS sides (side)
     WHERE EXISTS (SELECT FROM friendships back WHERE back.user_id = o.friend_id AND back.friend_id = o.user_id)
        OR EXISTS (SELECT FROM old_rows back WHERE back.user_id = o.friend_id AND back.friend_id = o.user_id);
    IF concerned IS NOT NULL THEN
        PERFORM friends_changed(concerned);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER friendships_note_delete AFTER DELETE ON friendships REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION friendships_note_delete();

CREATE FUNCTION friendships_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'who asked whom never changes: delete the row and insert another' USING ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER friendships_stay BEFORE UPDATE ON friendships FOR EACH ROW
    WHEN (OLD.user_id <> NEW.user_id OR OLD.friend_id <> NEW.friend_id) EXECUTE FUNCTION friendships_stay();

-- Results --------------------------------------------------------------------------------------------------------------

CREATE FUNCTION stats_changed(concerned bigint[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM users WHERE id = ANY (concerned) ORDER BY id FOR NO KEY UPDATE;
    UPDATE users SET stats_revision = 0 WHERE id = ANY (concerned);
END $$;

CREATE FUNCTION game_stats_note() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    concerned bigint[];
BEGIN
    -- Only the branch that runs is planned: each event has the tables of rows that it can have.
    CASE TG_OP
        WHEN 'INSERT' THEN
            SELECT array_agg(user_id) INTO concerned FROM new_rows;
        WHEN 'DELETE' THEN
            SELECT array_agg(user_id) INTO concerned FROM old_rows;
        ELSE
            SELECT array_agg(coalesce(n.user_id, o.user_id)) INTO concerned
              FROM old_rows o FULL JOIN new_rows n ON n.user_id = o.user_id
             WHERE (n.wins, n.losses) IS DISTINCT FROM (o.wins, o.losses);
    END CASE;
    IF concerned IS NOT NULL THEN
        PERFORM stats_changed(concerned);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER game_stats_note_insert AFTER INSERT ON game_stats REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION game_stats_note();
CREATE TRIGGER game_stats_note_update AFTER UPDATE ON game_stats REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION game_stats_note();
CREATE TRIGGER game_stats_note_delete AFTER DELETE ON game_stats REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION game_stats_note();

CREATE FUNCTION matches_changed(concerned bigint[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM users WHERE id = ANY (concerned) ORDER BY id FOR NO KEY UPDATE;
    UPDATE users SET matches_revision = 0 WHERE id = ANY (concerned);
END $$;

CREATE FUNCTION matches_note() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    concerned bigint[];
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            SELECT array_agg(DISTINCT side) INTO concerned
              FROM new_rows n, LATERAL (VALUES (n.player_a), (n.player_b)) AS sides (side);
        WHEN 'DELETE' THEN
            SELECT array_agg(DISTINCT side) INTO concerned
              FROM old_rows o, LATERAL (VALUES (o.player_a), (o.player_b)) AS sides (side);
        ELSE
            SELECT array_agg(DISTINCT side) INTO concerned
              FROM old_rows o FULL JOIN new_rows n ON n.id = o.id,
                   LATERAL (VALUES (o.player_a), (o.player_b), (n.player_a), (n.player_b)) AS sides (side)
             WHERE n IS DISTINCT FROM o AND side IS NOT NULL;
    END CASE;
    IF concerned IS NOT NULL THEN
        PERFORM matches_changed(concerned);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER matches_note_insert AFTER INSERT ON matches REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION matches_note();
CREATE TRIGGER matches_note_update AFTER UPDATE ON matches REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION matches_note();
CREATE TRIGGER matches_note_delete AFTER DELETE ON matches REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION matches_note();
