-- Secondary indexes of `clips`, apart from the tables so that a load can build them last.
CREATE INDEX users_email_idx           ON public.users (email);
CREATE INDEX devices_user_id_idx       ON public.devices (user_id);
CREATE INDEX messages_sender_id_idx    ON public.messages (sender_id);
CREATE INDEX messages_recipient_id_idx ON public.messages (recipient_id);
CREATE INDEX payments_user_id_idx      ON public.payments (user_id);
CREATE INDEX videos_author_id_idx      ON public.videos (author_id);
CREATE INDEX follows_followee_id_idx   ON public.follows (followee_id);
