--
-- PostgreSQL database dump
--

COPY public.users (id, "e mail") FROM stdin;
7	ada@example.org
8	\N
\.

CREATE FUNCTION f() AS $_$ COPY x FROM stdin; $_$;
-- PostgreSQL database dump complete
