-- The tables of the short-video platform `clips`.
--
-- A store may hold the rows of one country only, so no key points across users: a message's recipient or
-- a watched video may live in another store.

-- About persons: protected.
CREATE TABLE public.users (
    id         bigint PRIMARY KEY,
    country    char(2)     NOT NULL,
    created_at timestamptz NOT NULL,
    email      text        NOT NULL,
    phone      text        NOT NULL,
    full_name  text        NOT NULL,
    birth_date date        NOT NULL
);

CREATE TABLE public.devices (
    id        bigint PRIMARY KEY,
    user_id   bigint           NOT NULL,
    device_id uuid             NOT NULL,
    ip        inet             NOT NULL,
    model     text             NOT NULL,
    last_lat  double precision NOT NULL,
    last_lon  double precision NOT NULL
);

CREATE TABLE public.messages (
    id           bigint PRIMARY KEY,
    sender_id    bigint      NOT NULL,
    recipient_id bigint      NOT NULL,
    body         text        NOT NULL,
    sent_at      timestamptz NOT NULL
);

CREATE TABLE public.watch_history (
    user_id    bigint      NOT NULL,
    video_id   bigint      NOT NULL,
    watched_at timestamptz NOT NULL,
    seconds    int         NOT NULL,
    PRIMARY KEY (user_id, video_id, watched_at)
);

CREATE TABLE public.payments (
    id           bigint PRIMARY KEY,
    user_id      bigint      NOT NULL,
    card_last4   char(4)     NOT NULL,
    amount_cents bigint      NOT NULL,
    paid_at      timestamptz NOT NULL
);

-- What users publish: public.
CREATE TABLE public.profiles (
    user_id      bigint PRIMARY KEY,
    handle       text NOT NULL UNIQUE,
    display_name text NOT NULL,
    bio          text NOT NULL
);

CREATE TABLE public.videos (
    id           bigint PRIMARY KEY,
    author_id    bigint      NOT NULL,
    title        text        NOT NULL,
    description  text        NOT NULL,
    duration_s   int         NOT NULL,
    published_at timestamptz NOT NULL
);

CREATE TABLE public.follows (
    follower_id bigint NOT NULL,
    followee_id bigint NOT NULL,
    PRIMARY KEY (follower_id, followee_id)
);
