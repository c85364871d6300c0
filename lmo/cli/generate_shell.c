/* generate_shell.c - the shells' side of completion: both scripts ask `lmo __complete` (complete.c), which reads the tables, so
 * that they never know less than the program that they complete for. See generate.h. */
#include "cli/generate.h"
#include "cli/commands.h"

#include <string.h>

/* The words up to the cursor go as they are; bash has split them at '=', which complete.c undoes. A completion that ends with a
 * slash goes on: no blank after it. */
static const char bash[] =
    "# bash completion of lmo; written by `lmo completion bash`\n"
    "_lmo() {\n"
    "    local line directive=\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r line; do\n"
    "        case $line in\n"
    "        :*) directive=${line#:} ;;\n"
    "        ?*) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
    "        esac\n"
    "    done < <(\"${COMP_WORDS[0]}\" __complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
    "    local current=${COMP_WORDS[COMP_CWORD]}\n"
    "    [[ $current == = ]] && current=\n"
    "    case $directive in\n"
    "    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$current\") ;;\n"
    "    dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$current\") ;;\n"
    "    esac\n"
    "    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == */ && -z $directive ]]; then\n"
    "        compopt -o nospace\n"
    "    fi\n"
    "}\n"
    "complete -F _lmo lmo\n";

static const char zsh[] = "#compdef lmo\n"
                          "# zsh completion of lmo; written by `lmo completion zsh`\n"
                          "_lmo() {\n"
                          "    local line value about\n"
                          "    local -a values abouts goes_on goes_on_abouts\n"
                          "    while IFS= read -r line; do\n"
                          "        case $line in\n"
                          "        (:file) _files; return ;;\n"
                          "        (:dir) _files -/; return ;;\n"
                          "        esac\n"
                          "        value=${line%%$'\\t'*}\n"
                          "        about=${line#*$'\\t'}\n"
                          "        [[ -n $about ]] && about=\"$value  -- $about\" || about=$value\n"
                          "        if [[ $value == */ ]]; then\n"
                          "            goes_on+=(\"$value\") goes_on_abouts+=(\"$about\")\n"
                          "        else\n"
                          "            values+=(\"$value\") abouts+=(\"$about\")\n"
                          "        fi\n"
                          "    done < <(\"${words[1]}\" __complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
                          "    (( $#values )) && compadd -l -d abouts -a values\n"
                          "    (( $#goes_on )) && compadd -l -S '' -d goes_on_abouts -a goes_on\n"
                          "}\n"
                          "if [[ $funcstack[1] == _lmo ]]; then _lmo \"$@\"; else compdef _lmo lmo; fi\n";

bool lmo_generate_completion(const char *shell, FILE *out)
{
    if (strcmp(shell, "bash") == 0)
        fputs(bash, out);
    else if (strcmp(shell, "zsh") == 0)
        fputs(zsh, out);
    else
        return false;
    return true;
}

int lmo_cmd_completion(struct lmo_cli *cli)
{
    if (lmo_generate_completion(cli->args.positional[0], cli->out))
        return 0;
    lmo_cli_message(cli, "completion: there is one for bash and one for zsh, not for \"%.40s\"",
                    cli->args.positional[0]);
    return LMO_EXIT_USAGE;
}
