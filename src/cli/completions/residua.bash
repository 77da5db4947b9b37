
# Offers words that begin with `part`, behind what stands before it in `token`. Bash replaces only what stands behind the last of
# COMP_WORDBREAKS, outside of quotes.
_residua_offer() {
    local word before=${token%"$part"} kept=
    if [[ -z $quote ]]; then
        local rest=$token breaks=${COMP_WORDBREAKS//[^:=]/}
        [[ -n $breaks ]] && rest=${token##*[$breaks]}
        kept=${token%"$rest"}
    fi
    for word in "$@"; do
        [[ $word == "$part"* ]] || continue
        word=$before$word
        COMPREPLY+=("${word#"$kept"}")
    done
    # More follows a folder, a scheme, a name.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

_residua_paths() {
    local path paths=()
    while IFS= read -r path; do
        [[ -d ${path/#\~/$HOME} ]] && path+=/
        if [[ -z $quote ]]; then printf -v path %q "$path"; path=${path/#\\~/\~}; fi
        paths+=("$path")
    done < <(compgen -f -- "$part")
    _residua_offer "${paths[@]}"
}

_residua_words() {
    part=${token##*[,=]}
    _residua_offer "$@"
}

_residua_path() {
    part=${token##*=}
    _residua_paths
}

_residua_data() {
    if [[ $token == *\?* ]]; then
        part=${token##*[?,&]}
        _residua_offer split=train split=test limit= sample= seed= size= labels=
    elif [[ $token == *:* ]]; then
        part=${token##*[:,=]}
        case $token in
            demo:* | *=demo:*) _residua_offer fashion-mnist unseen digits ;;
            *) _residua_paths ;;
        esac
    else
        part=${token##*=}
        _residua_offer @SCHEMES@
    fi
}

_residua_all() {
    local line=${COMP_LINE:0:COMP_POINT} quote= part= words word verb=
    local token=${line##*[[:space:]]}
    read -ra words <<< "${line%"$token"}"
    local flag=
    [[ ${#words[@]} -gt 0 ]] && flag=${words[${#words[@]}-1]}
    for word in "${words[@]:1}"; do
        if [[ $word != -* ]]; then verb=$word; break; fi
    done
    if [[ $token == --*=* ]]; then flag=${token%%=*}; token=${token#*=}; fi
    if [[ $token == [\"\']* ]]; then quote=${token:0:1}; token=${token:1}; fi
    COMPREPLY=()
    case "$verb $flag" in
@CASES@
        'data inspect' | 'data verify')
            if [[ $token != -* ]]; then _residua_data; return; fi ;;
    esac
    _residua "$@"
}
