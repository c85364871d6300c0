/* members.h - reads a struct's members out of its header, so that a test can say: every one of them is in the JSON.
 *
 * A size or a list kept by hand is not enough: a small member can hide in padding, and then a record loses it silently. */
#ifndef LMO_TESTS_UNIT_MEMBERS_H
#define LMO_TESTS_UNIT_MEMBERS_H

#include "base/cleanup.h"
#include "base/fs.h"

#include <check.h>
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Comments out of C text, in place. */
static inline void members_strip_comments(char *text)
{
    char *to = text;
    for (char *from = text; *from;) {
        char *end = strncmp(from, "/*", 2) == 0 ? strstr(from, "*/") : NULL;
        if (end) {
            from = end + 2;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

/* Fails for every member of `struct NAME` in lmo-relative `header` that is neither a key of `json` nor among the words of
 * `except` (" a b "). */
static inline void members_all_in(const char *header, const char *name, const json_t *json, const char *except)
{
    char path[512], start[96];
    LMO_AUTO_FREE char *text = NULL;
    unsigned found = 0;
    snprintf(path, sizeof(path), "%s/%s", LMO_SOURCE_DIR, header);
    snprintf(start, sizeof(start), "struct %s {", name);
    ck_assert_msg(lmo_fs_read_file(path, 1U << 20, &text, NULL, NULL) == 0, "%s", path);
    members_strip_comments(text);
    char *body = strstr(text, start), *end = body ? strstr(body, "\n};") : NULL;
    ck_assert_msg(body && end, "%s has no struct %s", header, name);
    *end = '\0';
    body += strlen(start);
    for (char *p = body; *p; p++) { /* a member's name stands before [ , or ; */
        if (*p != '[' && *p != ',' && *p != ';') {
            continue;
        }
        char *last = p;
        while (last > body && isspace((unsigned char)last[-1])) {
            last--;
        }
        char *first = last;
        while (first > body && (isalnum((unsigned char)first[-1]) || first[-1] == '_')) {
            first--;
        }
        char member[64], word[66];
        snprintf(member, sizeof(member), "%.*s", (int)(last - first), first);
        snprintf(word, sizeof(word), " %s ", member);
        if (*p == '[') { /* skip the dimension */
            p = strchr(p, ']');
        }
        if (member[0] == '\0' || strstr(except, word)) {
            continue;
        }
        found++;
        ck_assert_msg(json_object_get(json, member) != NULL, "%s: member '%s' of struct %s is not in its JSON", header,
                      member, name);
    }
    ck_assert_uint_gt(found, 2);
}

#endif
